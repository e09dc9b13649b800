"""NumPy arrays in pinned memory, which are garbage until they are filled."""

from __future__ import annotations

from typing import Any

import numpy as np
from cupy import cuda


def empty_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = cuda.alloc_pinned_memory(n_bytes)
    return np.ndarray(shape, dtype=dtype, buffer=memory, order=order)


def empty_like_pinned(
    a: Any, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None
) -> np.ndarray:
    if subok is not None:
        raise TypeError("subok is not supported yet")
    if order in ("A", "K"):
        order = "F" if a.flags.f_contiguous and not a.flags.c_contiguous else "C"
    dtype = a.dtype if dtype is None else dtype
    return empty_pinned(a.shape if shape is None else shape, dtype, order)


def zeros_pinned(shape: Any, dtype: Any = float, order: str = "C") -> np.ndarray:
    out = empty_pinned(shape, dtype, order)
    out.fill(0)
    return out


def zeros_like_pinned(
    a: Any, dtype: Any = None, order: str = "K", subok: None = None, shape: Any = None
) -> np.ndarray:
    out = empty_like_pinned(a, dtype, order, subok, shape)
    out.fill(0)
    return out
