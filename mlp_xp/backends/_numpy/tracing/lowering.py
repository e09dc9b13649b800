"""NumPy operations of a traced step that machine code computes, so that threads share the work.

Each function records kernel calls that compute an operation, or returns False if it does not know
the operands. Only programs with machine code import this module.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from mlp_xp.backends._numpy.kernels.products import LEAST_PRODUCTS, choose_packed, product_jobs
from mlp_xp.backends._numpy.kernels.writing import has_rows, is_plain
from mlp_xp.backends._numpy.native.jobs import (
    ADD,
    MULTIPLY,
    SUBTRACT,
    Arithmetic,
    ColumnSums,
    Copy,
    Job,
    Take,
    address,
)
from mlp_xp.backends._numpy.native.tuning import LEAST_NUMBERS
from mlp_xp.backends._numpy.tracing.operations import copy_in_order
from mlp_xp.backends._numpy.tracing.traced import Traced, value_of

# NumPy multiplies stacks of smaller matrices than this, and sums the rows of narrower matrices.
_LEAST_SIDE, _LEAST_WIDTH = 8, 32
# The number of axes of a copy, besides the contiguous last one.
_MOST_AXES = 5


def _are_arrays(*operands: Any) -> bool:
    return all(isinstance(x, Traced | np.ndarray) for x in operands)


def _combine(operation: int, a: Any, b: Any, out: Traced) -> bool:
    is_known = _are_arrays(a, b) and is_plain(a, b, out)
    if not is_known or not (out.size == 1 or out.size >= LEAST_NUMBERS):
        return False
    if a.size < b.size and operation != SUBTRACT:
        a, b = b, a
    is_row = out.ndim > 1 and b.shape[-1:] == out.shape[-1:] and b.size == out.shape[-1]
    if a.size != out.size or not (b.size in (1, out.size) or is_row):
        return False
    if any(_share_memory(x, out) and not _are_same(x, out) for x in (a, b)):
        return False
    fields = Arithmetic(out.dtype == np.float64, operation, out.size, a, b, out, b.size)
    out.program.job(Job(fields, out.size >= LEAST_NUMBERS))
    return True


def _share_memory(x: Any, out: Traced) -> bool:
    return np.may_share_memory(value_of(x), out.value)


def _are_same(x: Any, out: Traced) -> bool:
    return bool(x.shape == out.shape and address(x) == address(out))


def _multiply(a: Any, b: Any, out: Traced) -> bool:
    if not _are_arrays(a, b) or not a.ndim == b.ndim == out.ndim == 3 or out.size == 0:
        return False
    if a.shape[0] != b.shape[0] or min(out.shape[1:]) < _LEAST_SIDE or not is_plain(out):
        return False
    if any(_share_memory(x, out) for x in (a, b)):
        return False
    ta, tb = (not has_rows(x[0]) for x in (a, b))
    a, b = np.swapaxes(a, 1, 2) if ta else a, np.swapaxes(b, 1, 2) if tb else b
    if (ta and tb) or a.dtype != out.dtype or b.dtype != out.dtype:
        return False
    if not (has_rows(a[0]) and has_rows(b[0])):
        return False
    parts = []
    for factors in ((a[k], b[k], out[k]) for k in range(out.shape[0])):
        packed = choose_packed(*factors, ta=ta, tb=tb)
        parts.append(product_jobs(*factors, packed, ta=ta, tb=tb))
    out.program.group(parts, out.size * a.shape[1 if ta else 2] >= LEAST_PRODUCTS)
    return True


def _sum_rows(x: Traced, axis: Any, dtype: Any, out: Traced) -> bool:
    if x.ndim != 2 or x.shape[1] < _LEAST_WIDTH or axis not in (0, -2) or dtype is not None:
        return False
    if x.size < LEAST_NUMBERS or not is_plain(x, out):
        return False
    n_rows, n_columns = x.shape
    out.program.job(Job(ColumnSums(x.dtype == np.float64, n_rows, n_columns, x, out), True))
    return True


def _take(source: Any, rows: Any, out: Traced) -> bool:
    is_known = (
        isinstance(source, Traced)
        and source.flags.c_contiguous
        and source.flags.aligned
        and source.value[:1].nbytes % 4 == 0
        and rows.dtype == np.int32
        and rows.ndim == 1
        and rows.flags.c_contiguous
        and rows.flags.aligned
    )
    if is_known:
        width = out.value.nbytes // 4 // max(out.shape[0], 1)
        out.program.job(Job(Take(False, source.shape[0], out.shape[0], width, source, rows, out)))
    return is_known


def _copy_number(out: Traced, x: Any) -> bool:
    if not _are_arrays(x) or not out.size == x.size == 1 or not is_plain(x, out):
        return False
    out.program.job(Job(Take(False, 1, 1, out.itemsize // 4, x, 0, out)))
    return True


def _copy(out: Traced, source: Traced) -> bool:
    size = source.itemsize
    if out.size < LEAST_NUMBERS or size not in (4, 8) or not source.flags.aligned:
        return False
    axes: list[tuple[int, ...]] = []  # The length and both strides of each axis, in bytes.
    target = size
    for length, stride in zip(source.shape[::-1], source.strides[::-1], strict=True):
        if axes and (stride, target) == tuple(axes[0][0] * step for step in axes[0][1:]):
            axes[0] = (length * axes[0][0], *axes[0][1:])
        elif length > 1:
            axes.insert(0, (length, stride, target))
        target *= length
    n_numbers, *steps = axes.pop()
    n_words, n_left = divmod(n_numbers * size, 8)
    if steps != [size, size] or n_left or not 1 <= len(axes) <= _MOST_AXES:
        return False
    # The outermost loop, which threads share, is over the longest axis, usually the samples.
    outer = max(axes)
    axes.remove(outer)
    padding = [(1, 0, 0)] * (_MOST_AXES - 1 - len(axes))
    layout = np.asarray([outer, *padding, *axes], np.int64).T.copy()
    if (layout[1:] % 8).any():
        return False
    layout[1:] //= 8
    out.program.job(Job(Copy(False, n_words, layout, source, out), True))
    return True


LOWERED: dict[Any, Any] = {
    np.add: partial(_combine, ADD),
    np.subtract: partial(_combine, SUBTRACT),
    np.multiply: partial(_combine, MULTIPLY),
    np.matmul: _multiply,
    np.sum: _sum_rows,
    np.take: _take,
    np.copyto: _copy_number,
    copy_in_order: _copy,
}
