"""JAX: loops of training steps are compiled once per fit, and their state is donated.

This folder contains no formulas: `nn`, `optimizers` and `backends.kernels` define them.
"""
