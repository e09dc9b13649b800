"""Checks of arguments: X, y, weights, keywords, and settings that all processes must share.

Parameters are checked in `settings`.
"""
