"""CuPy kernels with few launches: in small networks, launching a kernel costs more than running it.

The formulas are defined in `nn`, `optimizers` or `backends.kernels`.
"""
