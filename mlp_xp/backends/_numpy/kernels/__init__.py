"""Kernels for NumPy: each kernel calls machine code, or falls back to the default kernel.

The compiled functions are in `machine_code`, and the formulas in `nn` and `optimizers`.
"""
