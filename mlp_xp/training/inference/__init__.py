"""Predictions and input gradients, in batches of one shape.

Training steps are in `step`.
"""
