"""Backends whose ranks share a step: sums, compilation and shared memory of each library.

A file has a backend of `mlp_xp.backends` with these parts replaced; other libraries sum in the
host's memory.
"""
