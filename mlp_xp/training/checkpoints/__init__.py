"""A training at one point as files, and the way back.

When one is written is decided by a callback.
"""
