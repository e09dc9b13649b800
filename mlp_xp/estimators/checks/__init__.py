"""Checks of what a caller gives: X, y, weights, keywords, and what ranks must have in common.

They change nothing; parameters are checked in `settings`.
"""
