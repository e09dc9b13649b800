"""The loop of a fit: it asks for epochs, receives their records, and decides when to end.

A trainer, or a stack of models, runs the epochs.
"""
