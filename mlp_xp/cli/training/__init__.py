"""The parts of `mlp-xp train`: settings, task, preparation, fit, progress, deadline, results.

`commands.train` parses the options and calls these parts in order.
"""
