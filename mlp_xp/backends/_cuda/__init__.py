"""Code shared by the CuPy and torch backends on NVIDIA GPUs: CUDA graphs and pinned memory.

Neither library is imported here; their objects are passed as arguments.
"""
