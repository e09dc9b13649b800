"""A stand-in for CuPy over NumPy, as strict as CuPy and as late as CUDA allows."""
