"""Compiled steps: a step is traced into a program, which later calls run without allocations.

Calls of machine code in a program are created by `kernels` and run by `native`.
"""
