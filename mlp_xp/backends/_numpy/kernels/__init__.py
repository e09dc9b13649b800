"""NumPy's kernels: each writes a kernel call, or falls back to its default.

What a call computes is in `machine_code`; formulas are in `nn` and `optimizers`.
"""
