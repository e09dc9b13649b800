"""CuPy: one launch for a gather, one for an update.

Only execution lives here: every formula has its definition in `nn`, `optimizers` or
`backends.kernels`.
"""
