"""Backends for several ranks: each library's sums, compilation and shared memory.

Each file subclasses a backend from `mlp_xp.backends`. Other libraries' arrays are summed in host
memory.
"""
