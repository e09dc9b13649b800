"""Checks of X, y, sample weights, keyword arguments, and settings that all ranks must share.

The package `settings` checks an estimator's parameters.
"""
