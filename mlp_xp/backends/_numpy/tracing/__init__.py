"""Compiled steps: a step is traced into a program, which later calls run without allocations.

`kernels` creates the program's calls of machine code, and `runtime` runs them.
"""
