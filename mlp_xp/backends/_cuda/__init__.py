"""Code shared by the CuPy and torch backends on NVIDIA GPUs: CUDA graphs and pinned memory.

The code imports neither library; callers pass CuPy's or torch's objects.
"""
