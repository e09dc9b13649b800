"""The parts of `mlp-xp train`: settings, task, progress, deadline, ending and results.

Options are in `commands`, and so is the order of what is done.
"""
