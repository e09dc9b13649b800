"""Save the state of a training run to files and restore it.

A callback decides when.
"""
