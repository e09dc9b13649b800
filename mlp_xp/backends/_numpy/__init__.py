"""NumPy: kernels, the compiled step, and the machine code and threads that run it.

A step is traced once and then replayed; long trainings run it as machine code. Only execution lives
here: every formula has its definition in `nn`, `optimizers` or `backends.kernels`.
"""
