"""Checks of arguments: X, y, weights, keywords, and what all processes must agree on.

Parameters are checked in `settings`.
"""
