"""Memory that starts at a cache line, as one vector of AVX-512 fills a line.

`malloc` returns multiples of 16 bytes, mostly 16 bytes after a page. Each load of a product then
reads two lines, which takes up to a third longer (docs/performance.md).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlp_xp.backends._numpy.jobs import address

__all__ = ["aligned", "empty"]

_LINE = 64  # Bytes.
_SMALL = 1 << 16  # Bytes of an array that is copied again and again, from fit to fit.


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an uninitialized array that starts at a cache line."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + _LINE, np.uint8)
    start = -address(memory) % _LINE
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """Return the array if it is small or starts at a cache line, else a copy that does."""
    if array.nbytes < _SMALL or address(array) % _LINE == 0:
        return array
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy
