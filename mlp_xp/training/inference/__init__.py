"""Predictions and input gradients, in batches of one shape.

Nothing here trains.
"""
