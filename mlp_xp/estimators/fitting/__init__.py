"""A fit from its samples to its published state: preparation, requests, reports, resuming.

The loop itself is in `training`.
"""
