"""PyTorch: kernels that use torch's fused matrix products, activations and updates.

This folder contains no formulas: `nn`, `optimizers` and `backends.kernels` define them.
"""
