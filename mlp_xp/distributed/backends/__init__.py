"""Backends for several ranks: sums, compilation and shared memory for each library.

Each file subclasses a backend of `mlp_xp.backends`. Arrays of other libraries are summed in host
memory.
"""
