"""Predictions and input gradients, computed in batches.

Training steps are in `step`.
"""
