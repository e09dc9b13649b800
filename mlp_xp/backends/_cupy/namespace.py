"""CuPy's Array API namespace without operations that wait for the device.

It is array-api-compat's, except for two functions. Their `sign` assigns through a boolean mask,
whose number of elements CuPy would wait for, and `matmul` uses cuBLASLt, which can be captured in a
CUDA graph.
"""

from __future__ import annotations

from typing import Any

import array_api_compat.cupy
import cupy

from mlp_xp.backends._cupy.cublaslt import multiply


def matmul(a: Any, b: Any, /) -> Any:
    """Return the product of matrices or of stacks of matrices."""
    out = multiply(a, b) if min(a.ndim, b.ndim) > 1 else None
    return a @ b if out is None else out


def sign(x: Any, /) -> Any:
    """Return -1, 0 or 1 for each number, and NaN for NaN."""
    return cupy.sign(x)


def __getattr__(name: str) -> Any:
    return getattr(array_api_compat.cupy, name)
