"""The JAX backend, which compiles loops of training steps once per fit and donates their state.

This folder contains no formulas: `nn`, `optimizers` and `backends.kernels` define them.
"""
