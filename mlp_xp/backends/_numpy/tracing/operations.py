"""Faster substitutes for NumPy operations: machine code or other NumPy calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.backends._numpy.runtime.memory import empty
from mlp_xp.backends._numpy.runtime.thread_pool import rows_error
from mlp_xp.backends._numpy.tracing.traced import Traced

# NumPy's `take` checks positions by copying the result. For results up to this size in bytes,
# `take` is faster than our own check.
_SHORT_DETOUR = 1 << 14
# The numbers of multiplications that one thread computes in 0.05 ms and in 4 ms (a scheduler time
# slice).
_LEAST_LATE, _MOST_LATE = 5_000_000, 200_000_000
# The maximum number of elements per matrix in `TimedProduct`. At this size, its test with random
# data takes 20 ms and 16 MB.
_LARGEST_LATE = 1 << 22

REDUCTIONS = {
    np.sum: np.add,
    np.prod: np.multiply,
    np.max: np.maximum,
    np.min: np.minimum,
    np.any: np.logical_or,
    np.all: np.logical_and,
}

SHAPED_BY_VALUES = (np.nonzero, np.unique, np.argwhere, np.flatnonzero)
# Up to this size in bytes, NumPy compares two arrays faster than an array with a scalar.
_MOST_COMPARED = 1 << 18


def constant(number: float, ufunc: Any, out: Traced) -> Any:
    """Convert a Python number to an array once, instead of in each call."""
    if out.dtype.kind != "f":
        return number
    is_compared = ufunc in (np.maximum, np.minimum) and out.value.nbytes <= _MOST_COMPARED
    operand = empty(out.shape if is_compared else (), out.dtype)
    operand[...] = number
    return operand


def copy_in_order(out: np.ndarray, x: np.ndarray) -> None:
    """Copy an array with permuted axes to C order, as `numpy.reshape` does."""
    out.reshape(x.shape)[...] = x


def item(function: Any, i: int, *args: Any, **options: Any) -> Any:
    """Return the ``i``-th result of a function."""
    return function(*args, **options)[i]


def identity_like(x: Any) -> Any:
    """Return identity matrices, an invertible stand-in for matrices whose values are unknown."""
    is_matrix = isinstance(x, np.ndarray) and x.ndim > 1
    return np.eye(*x.shape[-2:], dtype=x.dtype) + np.zeros_like(x) if is_matrix else x


def take_rows(x: np.ndarray, rows: np.ndarray, axis: int | None, out: np.ndarray) -> None:
    """Compute `numpy.take`, and check the positions without copying a large result."""
    size = x.size if axis is None else x.shape[axis]
    if out.nbytes <= _SHORT_DETOUR:
        try:
            np.take(x, rows, axis, out)
        except IndexError:
            raise rows_error(rows, size) from None
        return
    if not -size <= rows.min() <= rows.max() < size:
        raise rows_error(rows, size)
    np.take(x, rows, axis, out, "wrap")


def or_timed_product(function: Any, *operands: Any) -> Any:
    """Return the function, or a `TimedProduct` if a busy processor may delay this product."""
    if function is not np.matmul:
        return function
    a, b = operands
    is_known = (
        a.ndim == b.ndim == 2
        and a.dtype == b.dtype
        and a.dtype in (np.float32, np.float64)
        and _LEAST_LATE <= a.size * b.shape[1] <= _MOST_LATE
        and max(a.size, b.size) <= _LARGEST_LATE
        and min(*a.shape, *b.shape) > 1
        and all(x.flags.c_contiguous or x.flags.f_contiguous for x in operands)
        and not np.may_share_memory(a, b)  # NumPy uses another BLAS function, syrk, for a @ a.T.
    )
    if not is_known:
        return function
    # Imported only here, to speed up short fits, which have smaller products.
    from mlp_xp.backends._numpy.runtime.busy import timed_product

    return timed_product(a.dtype, a.shape, b.shape, a.flags.c_contiguous, b.flags.c_contiguous)
