"""The NumPy backend: kernels, the compiled step, and the machine code and threads that run it.

A step is traced once and then replayed; in long fits it runs as machine code. This folder contains
no formulas: `nn`, `optimizers` and `backends.kernels` define them.
"""
