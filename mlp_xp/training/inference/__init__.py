"""Predictions and input gradients, in batches of one shape."""
