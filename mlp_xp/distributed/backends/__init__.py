"""Backends for several ranks: sums, compilation and shared memory of each library.

Each file subclasses a backend of `mlp_xp.backends`; other libraries sum in host memory.
"""
