"""Parts that CuPy and torch share on NVIDIA GPUs: captured graphs and pinned memory.

They get a library's objects as arguments and import no library.
"""
