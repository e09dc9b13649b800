"""Memory aligned to cache lines, since an AVX-512 vector fills a line.

`malloc` returns addresses that are multiples of 16 bytes, mostly 16 bytes after a page. Each load
in a product then reads two lines, which takes up to a third longer (docs/performance.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_LINE = 64  # Bytes.
_SMALL = 1 << 16  # The size of an array that is copied from fit to fit.


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an uninitialized array aligned to a cache line."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """Return the array if it is small or aligned to a cache line, otherwise an aligned copy."""
    if array.nbytes < _SMALL or array.ctypes.data % _LINE == 0:
        return array
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def joined(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return arrays in row-major order; small ones are copied to one piece of memory per dtype."""
    pieces: dict[np.dtype[Any], np.ndarray] = {}
    for dtype in {array.dtype for array in arrays}:
        size = sum(x.size for x in arrays if x.dtype == dtype and x.nbytes < _SMALL)
        pieces[dtype] = empty((size,), dtype)
    result = []
    for array in arrays:
        if array.nbytes >= _SMALL:
            result.append(np.asarray(array, order="C"))
            continue
        piece = pieces[array.dtype]
        place, pieces[array.dtype] = piece[: array.size], piece[array.size :]
        result.append(place.reshape(array.shape))
        result[-1][...] = array
    return result


def in_one_piece(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the memory of adjacent arrays as one vector, or None if they are not adjacent."""
    first, memory = arrays[0], arrays[0].base
    start = first.ctypes.data
    for array in arrays:
        if array.base is not memory or array.ctypes.data != start or array.dtype != first.dtype:
            return None
        start += array.nbytes
    if memory is None or memory.ndim != 1:  # Reshaping may copy.
        return None
    offset = first.ctypes.data - memory.ctypes.data
    return memory.view(np.uint8)[offset:][: start - first.ctypes.data].view(first.dtype)
