"""JAX: a loop of steps is compiled once per fit and takes over the memory of its state.

Only execution lives here: formulas are in `nn`, `optimizers` and `backends.kernels`.
"""
