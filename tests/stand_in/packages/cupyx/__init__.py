"""The part of `cupyx` that the library uses: NumPy arrays in pinned memory, which are garbage."""

import math
from typing import Any

import numpy as np
from cupy import cuda


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    memory = cuda.alloc_pinned_memory(math.prod(shape) * np.dtype(dtype).itemsize)
    return np.ndarray(shape, dtype=dtype, buffer=memory, order=order)
