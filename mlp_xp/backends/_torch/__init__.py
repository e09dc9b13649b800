"""PyTorch: kernels that use its fused products, activations and updates.

This folder only executes: all formulas are defined in `nn`, `optimizers` or `backends.kernels`.
"""
