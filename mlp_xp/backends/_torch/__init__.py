"""PyTorch: products that add biases, and PyTorch's fused activations and updates.

Only execution lives here: every formula has its definition in `nn`, `optimizers` or
`backends.kernels`.
"""
