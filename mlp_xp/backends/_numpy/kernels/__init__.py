"""Kernels for NumPy: each one creates calls of machine code, or falls back to its default.

The compiled functions are in `machine_code`, and the formulas in `nn` and `optimizers`.
"""
