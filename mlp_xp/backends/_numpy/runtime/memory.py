"""Allocate memory aligned to cache lines.

An AVX-512 vector is as long as a cache line. `malloc` aligns only to 16 bytes, so each load in a
matrix product would read two lines, and the product would take up to a third longer
(docs/performance.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_LINE = 64  # The size of a cache line in bytes.
_SMALL = 1 << 16  # Smaller arrays, in bytes, are stored next to each other instead of aligned.


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an uninitialized array aligned to a cache line."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """Copy an array to aligned memory; return small arrays and aligned arrays unchanged."""
    if array.nbytes < _SMALL or array.ctypes.data % _LINE == 0:
        return array
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def joined(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return C-contiguous arrays, with small arrays of the same dtype adjacent in memory."""
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
    """Return a vector view of adjacent arrays, or None if they are not adjacent."""
    first, memory = arrays[0], arrays[0].base
    start = first.ctypes.data
    for array in arrays:
        if array.base is not memory or array.ctypes.data != start or array.dtype != first.dtype:
            return None
        start += array.nbytes
    if memory is None or memory.ndim != 1:  # The view below needs at least one axis.
        return None
    offset = first.ctypes.data - memory.ctypes.data
    return memory.view(np.uint8)[offset:][: start - first.ctypes.data].view(first.dtype)
