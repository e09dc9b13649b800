"""Checkpoints: the state of a training run, saved to files and restored from them.

A callback decides when to save.
"""
