"""The parts of `mlp-xp train`: settings, task, preparation, fit, progress, deadline and results.

Options are in `commands`, and so is the order of what is done.
"""
