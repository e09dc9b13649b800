"""Checks of what a caller gives: X, y, weights, keywords, and what processes must have alike.

They change nothing; parameters are checked in `settings`.
"""
