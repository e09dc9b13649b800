"""Parts that CuPy and torch share on NVIDIA GPUs: captured graphs and pinned memory.

Each knows a library by the objects it is given, and imports none.
"""
