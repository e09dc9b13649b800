"""Backends for several ranks: sums, compilation and shared memory for each library.

Each file subclasses a backend of `mlp_xp.backends`. Libraries without a file are summed in host
memory.
"""
