"""Infinity and NaN in training: detection, diagnosis, and the error that names the cause.

Each trainer creates a `Guard`, which checks the loss and the weights.
"""
