"""JAX: loops of training steps are compiled once per fit, and their state is donated.

This folder only executes: all formulas are defined in `nn`, `optimizers` or `backends.kernels`.
"""
