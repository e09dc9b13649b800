"""Checks of arguments: X, y, weights, keywords, and settings that must be equal on all ranks.

Parameters are checked in `settings`.
"""
