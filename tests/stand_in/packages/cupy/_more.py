"""Functions that are made of others."""

from typing import Any

import numpy as np

from cupy._array import ndarray
from cupy._creation import arange
from cupy._operations import check_operands, operate


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    check_operands(condition, x, y)
    if condition.dtype != np.bool_:
        condition = condition.astype(np.bool_)
    return operate("where", np.where, (condition, x, y))


def take_along_axis(a: ndarray, indices: ndarray, axis: int | None) -> ndarray:
    if indices.dtype.kind not in "iu":
        raise IndexError("`indices` must be an integer array")
    if a.ndim != indices.ndim:
        raise ValueError("`indices` and `a` must have the same number of dimensions")
    axis = range(a.ndim)[axis]
    index = [
        arange(n).reshape((1,) * i + (-1,) + (1,) * (a.ndim - i - 1)) if i != axis else indices
        for i, n in enumerate(a.shape)
    ]
    return a[tuple(index)]
