"""Read files up to a size limit, and write files completely or not at all.

The file formats are defined in `saving`, `datasets` and `training.checkpoints`.
"""
