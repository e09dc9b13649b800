"""Files that are read within limits, and written as a whole or not at all.

Formats are in `saving`, `datasets` and `training.checkpoints`.
"""
