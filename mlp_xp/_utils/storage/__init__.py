"""Files that are read within limits, and written completely or not at all.

Formats are in `saving`, `datasets` and `training.checkpoints`.
"""
