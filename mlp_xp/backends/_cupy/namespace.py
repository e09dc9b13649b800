"""CuPy's namespace of the Array API, in which nothing waits for the device.

It is array-api-compat's, but for `sign`: theirs assigns by a boolean mask, and CuPy waits for the
number of elements of a mask.
"""

from __future__ import annotations

from typing import Any

import array_api_compat.cupy
import cupy

__all__ = ["sign"]


def sign(x: Any, /) -> Any:
    """Return -1, 0 or 1 for each number, and NaN for NaN."""
    return cupy.sign(x)


def __getattr__(name: str) -> Any:
    return getattr(array_api_compat.cupy, name)
