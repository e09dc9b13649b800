"""Code that CuPy and torch share on NVIDIA GPUs: captured graphs and pinned memory.

The library's objects are passed as arguments, and no library is imported.
"""
