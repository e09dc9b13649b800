"""A step traced once into a program, which later calls run without allocations.

The kernel calls in a program are written by `kernels` and run by `native`.
"""
