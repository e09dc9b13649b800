"""Compiled steps: a step is traced once into a program that runs without allocations.

`kernels` creates the program's calls to machine code, and `runtime` runs them.
"""
