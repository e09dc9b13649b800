"""Rows of data: taken by position, out of arrays of any library, sparse rows and mapped files."""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from scipy import sparse

from mlp_xp.backends import get_backend

__all__ = ["Rows", "is_mapped", "kept_dtype", "some_rows", "take_rows"]

# Rows of smaller arrays are copied: a few milliseconds, and steps take them in order.
_COPIED_BYTES = 1 << 23


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an array, which is not copied.

    Parameters
    ----------
    x : (n, features) array of any library
    rows : (samples,) integer array
        Positions in x.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.training.rows import Rows, take_rows
    >>> some = Rows(np.asarray([[0.0], [1.0], [2.0]]), np.asarray([2, 0]))
    >>> some.shape, take_rows(some, slice(0, 1))
    ((2, 1), array([[2.]]))
    """

    x: Any
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array that has only these rows."""
        return (len(self.rows), *self.x.shape[1:])

    @property
    def dtype(self) -> Any:
        """Of the array."""
        return self.x.dtype


def take_rows(x: Any, rows: Any) -> Any:
    """Return some rows, dense; ``rows`` is a slice or positions."""
    if isinstance(x, Rows):
        return take_rows(x.x, x.rows[rows])
    if sparse.issparse(x):
        return x[rows].toarray()
    if isinstance(rows, slice) or isinstance(x, np.ndarray):
        return x[rows, :] if x.ndim == 2 else x[rows]
    backend = get_backend(x)
    with backend.scope():
        return backend.xp.take(x, backend.put(rows), axis=0)


def kept_dtype(x: Any, dtype: str) -> str | None:
    """Return what data are converted to before the steps, None for integers that stay.

    Of NumPy's these are the signed ones and uint8, which every library can take rows of.
    """
    if isinstance(x, Rows):
        return kept_dtype(x.x, dtype)
    if sparse.issparse(x):
        return dtype
    if isinstance(x, np.ndarray):
        stays = (x.dtype.kind == "i" or x.dtype == np.uint8) and x.dtype.isnative
        return None if stays else dtype
    is_integer = array_api_compat.array_namespace(x).isdtype(x.dtype, "integral")
    return None if is_integer else dtype


def some_rows(x: Any, rows: np.ndarray) -> Any:
    """Return some rows: of sparse rows and of a small array a copy, else `Rows`."""
    if sparse.issparse(x):  # They stay sparse: there may be no memory for all of them as an array.
        return x[rows]
    n_bytes = getattr(x, "nbytes", 8 * math.prod(x.shape))
    return take_rows(x, rows) if n_bytes < _COPIED_BYTES else Rows(x, rows)


def is_mapped(x: Any) -> bool:
    """Whether an array is part of a memory-mapped file.

    Examples
    --------
    >>> import numpy as np
    >>> from mlp_xp.training.rows import is_mapped
    >>> is_mapped(np.ones(3)[1:])
    False
    """
    while isinstance(x, np.ndarray):
        x = x.base
    return isinstance(x, mmap.mmap)
