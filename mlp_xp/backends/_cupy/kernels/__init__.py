"""CuPy's kernels: few launches, since a launch costs more than the work of a small network.

Formulas have their definition in `nn`, `optimizers` or `backends.kernels`.
"""
