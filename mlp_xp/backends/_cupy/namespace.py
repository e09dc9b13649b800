"""array-api-compat's namespace for CuPy, except for `matmul` and `sign`.

`matmul` uses cuBLASLt, which can be captured in a CUDA graph. `sign` does not use a boolean mask,
for which CuPy would wait for the device.
"""

from __future__ import annotations

from typing import Any

import array_api_compat.cupy
import cupy

from mlp_xp.backends._cupy.cublaslt import multiply


def matmul(a: Any, b: Any, /) -> Any:
    """Return the product of two matrices or stacks of matrices."""
    out = multiply(a, b) if min(a.ndim, b.ndim) > 1 else None
    return a @ b if out is None else out


def sign(x: Any, /) -> Any:
    """Return -1, 0 or 1 for each number, and NaN for NaN."""
    return cupy.sign(x)


def __getattr__(name: str) -> Any:
    return getattr(array_api_compat.cupy, name)
