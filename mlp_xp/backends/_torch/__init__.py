"""PyTorch: kernels that use torch's fused matrix products, activations and updates.

This folder only executes: all formulas are defined in `nn`, `optimizers` or `backends.kernels`.
"""
