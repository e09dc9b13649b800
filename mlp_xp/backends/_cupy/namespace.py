"""array-api-compat's namespace for CuPy, except for functions that a CUDA graph cannot contain.

Such functions use cuBLAS, copy from the host, or wait for the device.
"""

from __future__ import annotations

from typing import Any

import array_api_compat.cupy
import cupy

from mlp_xp.backends._cupy.cublaslt import multiply

# For more arrays of a smaller average size, `cupy.concatenate` copies addresses from the host.
_MOST_ARRAYS, _LARGE = 8, 1 << 21


def matmul(a: Any, b: Any, /) -> Any:
    """Return the product of two matrices or stacks of matrices; use cuBLASLt if possible."""
    out = multiply(a, b) if min(a.ndim, b.ndim) > 1 else None
    return a @ b if out is None else out


def vecdot(a: Any, b: Any, /, *, axis: int = -1) -> Any:
    """Return sums of products of real numbers, without cuBLAS."""
    return cupy.sum(a * b, axis=axis)


def concat(arrays: Any, /, *, axis: int | None = 0) -> Any:
    """Concatenate arrays along an axis, a few at a time."""
    parts = list(arrays)
    while len(parts) > _MOST_ARRAYS and sum(p.nbytes for p in parts) < len(parts) * _LARGE:
        groups = range(0, len(parts), _MOST_ARRAYS)
        parts = [cupy.concatenate(parts[i : i + _MOST_ARRAYS], axis=axis) for i in groups]
    return cupy.concatenate(parts, axis=axis)


def sign(x: Any, /) -> Any:
    """Return -1, 0 or 1 for each number, and NaN for NaN, without a boolean mask."""
    return cupy.sign(x)


def __getattr__(name: str) -> Any:
    return getattr(array_api_compat.cupy, name)
