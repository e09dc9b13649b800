"""Operations of NumPy that a job can do, and one that NumPy does with a detour."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.backends._numpy.thread_pool import has_pool, rows_error
from mlp_xp.backends._numpy.traced import Traced

__all__ = ["REDUCTIONS", "are_numbers", "can_be_taken", "take_rows"]

# NumPy's own check of positions writes a result twice; up to this many bytes ours takes longer.
_SHORT_DETOUR = 1 << 14

REDUCTIONS = {
    np.sum: np.add,
    np.prod: np.multiply,
    np.max: np.maximum,
    np.min: np.minimum,
    np.any: np.logical_or,
    np.all: np.logical_and,
}


def are_numbers(*operands: Any) -> bool:
    """Whether jobs are written, and operands are single numbers that one takes."""
    dtype = getattr(operands[-1], "dtype", None)
    return (
        has_pool()
        and dtype in (np.float32, np.float64)
        and all(
            isinstance(operand, Traced | np.ndarray)
            and operand.size == 1
            and operand.dtype == dtype
            for operand in operands
        )
    )


def can_be_taken(source: Any, rows: Traced) -> bool:
    """Whether a job can take the rows."""
    return (
        has_pool()
        and isinstance(source, Traced)
        and source.flags.c_contiguous
        and source.flags.aligned
        and source.value[:1].nbytes % 4 == 0
        and rows.dtype == np.int32
        and rows.ndim == 1
        and rows.flags.c_contiguous
        and rows.flags.aligned
    )


def take_rows(x: np.ndarray, rows: np.ndarray, axis: int | None, out: np.ndarray) -> None:
    """Compute `numpy.take`, whose own check of positions writes a result twice."""
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
