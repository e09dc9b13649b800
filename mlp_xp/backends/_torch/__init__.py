"""PyTorch: kernels that write into memory that is there, and PyTorch's fused updates.

Only execution lives here: every formula has its definition in `nn`, `optimizers` or
`backends.kernels`.
"""
