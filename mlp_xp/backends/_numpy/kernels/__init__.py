"""NumPy's kernels: each writes a kernel call, and falls back to its default where none fits.

What a call computes is in `machine_code`; formulas are in `nn` and `optimizers`.
"""
