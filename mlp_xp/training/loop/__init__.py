"""The loop of a fit, which requests epochs, receives their records, and decides when to stop.

A trainer, or a stack of models, runs the epochs.
"""
