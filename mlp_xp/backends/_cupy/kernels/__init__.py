"""Kernels for CuPy that need few launches: in small networks a launch costs more than its work.

The formulas are defined in `nn`, `optimizers` or `backends.kernels`.
"""
