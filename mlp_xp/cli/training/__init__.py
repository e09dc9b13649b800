"""The parts of `mlp-xp train`: settings, task, preparation, fit, progress, deadline, results.

`commands` has the options and calls these parts in order.
"""
