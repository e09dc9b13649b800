"""Compiled steps: a step is traced into a program; later calls run the program without allocations.

Calls of machine code in a program are created by `kernels` and run by `native`.
"""
