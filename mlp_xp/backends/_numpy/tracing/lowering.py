"""Translate a traced step's NumPy operations to machine code, so that threads share the work.

Each function records kernel calls for an operation, or returns False if it does not support the
operands. Only programs with machine code import this module.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mlp_xp.backends._numpy.kernels.formulas import (
    dot_loop,
    is_large,
    layout,
    reduction_loop,
)
from mlp_xp.backends._numpy.kernels.products import LEAST_PRODUCTS, choose_packed, product_tasks
from mlp_xp.backends._numpy.kernels.writing import are_contiguous, has_rows
from mlp_xp.backends._numpy.runtime.tasks import ColumnSums, Task
from mlp_xp.backends._numpy.runtime.tuning import LEAST_NUMBERS, rows_of_block
from mlp_xp.backends._numpy.tracing.elementwise import (
    are_arrays,
    compute,
    copy_values,
    share_memory,
)
from mlp_xp.backends._numpy.tracing.moving import (
    concatenate,
    copy,
    in_order,
    stack,
    take,
    take_along,
)
from mlp_xp.backends._numpy.tracing.operations import copy_in_order
from mlp_xp.backends._numpy.tracing.traced import Traced
from mlp_xp.compiler.cpu_expressions import EXPRESSIONS, LOGICAL

# Larger stacks of matrices are left to NumPy, since their table of calls would be large.
_MOST_PRODUCTS = 1024
# Narrower matrices are summed over their rows in one thread.
_LEAST_WIDTH = 32
# float32 represents all integers up to this one exactly.
_MOST_COUNTED = 1 << 24


def _multiply(a: Any, b: Any, out: Traced) -> bool:
    """Record the product of two matrices or stacks of matrices."""
    if not are_arrays(a, b) or out.size == 0 or not are_contiguous(out):
        return False
    if b.ndim == 1:  # A vector is a column if on the right, or a row if on the left.
        return _multiply(a, b[:, None], out[..., None])
    if a.ndim == 1:
        return _multiply(a[None], b, out[..., None, :])
    if a.dtype != out.dtype or b.dtype != out.dtype or any(share_memory(x, out) for x in (a, b)):
        return False
    stack = out.shape[:-2]
    places = list(np.ndindex(stack))
    if len(places) > _MOST_PRODUCTS:
        return False
    (a, ta), (b, tb) = map(_as_factor, (a, b))
    if ta and tb:
        a, ta = in_order(np.swapaxes(a, -1, -2)), False
    if a is None or b is None:
        return False
    a, b = (np.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (a, b))
    parts = []
    for factors in ((a[k], b[k], out[k]) for k in places):
        packed = choose_packed(*factors, ta=ta, tb=tb)
        parts.append(product_tasks(*factors, packed, ta=ta, tb=tb))
    if len(parts) > 1:
        out.program.group(parts, out.size * a.shape[-2 if ta else -1] >= LEAST_PRODUCTS)
    else:
        for task in parts[0]:
            out.program.task(task)
    return True


def _as_factor(x: Any) -> tuple[Any, bool]:
    """Return matrices with contiguous rows, and whether they are transposed."""
    first = x[(0,) * (x.ndim - 2)]
    if has_rows(first) or not has_rows(first.T):
        return x if has_rows(first) else in_order(x), False
    return np.swapaxes(x, -1, -2), True


def _reduce(name: str, x: Traced, axis: Any, dtype: Any, out: Traced) -> bool:
    """Record a sum, product, maximum or minimum along axes.

    Sums that keep the last axis are computed by columns; all others are computed by rows.
    """
    if name == "sum" and out.dtype == np.int64:
        x = x.astype(np.int64, copy=False)
    elif not are_contiguous(out):
        return False
    if dtype not in (None, out.dtype) or x.dtype != out.dtype or x.size == 0:
        return False
    given = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = sorted(axis % x.ndim for axis in given)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    sums_columns = name == "sum" and x.dtype != np.int64 and kept[-1:] == [x.ndim - 1]
    ordered = in_order(np.transpose(x, (*axes, *kept) if sums_columns else (*kept, *axes)))
    if ordered is None:
        return False
    if not kept and name == "sum":
        _sum_all(partial(reduction_loop, "sum"), [ordered], out)
    elif sums_columns:
        shape = x.size // out.size, out.size
        is_shared = x.size >= LEAST_NUMBERS and out.size >= _LEAST_WIDTH
        sums = ColumnSums(x.dtype == np.float64, *shape, np.reshape(ordered, shape), out)
        out.program.task(Task(sums, is_shared))
    else:
        rows = np.reshape(ordered, (out.size, -1))
        loop = reduction_loop(name, layout(rows), rows.shape[-1])
        loop.run([rows], [out], is_shared=is_large(x))
    return True


def _dot(a: Any, b: Any, out: Traced) -> bool:
    if not are_arrays(a, b) or a.shape != b.shape or a.ndim != 1 or not a.size:
        return _reduce("sum", a * b, -1, None, out)
    if not are_contiguous(a, b, out):
        return False
    _sum_all(dot_loop, [a, b], out)
    return True


def _cumulate(x: Any, out: Traced, axis: int | None = None) -> bool:
    """Record cumulative sums, computed over the last 2 elements, then the last 4, 8 and so on."""
    if axis is None or not x.size:
        return False
    y, n = np.moveaxis(x, axis, 0), 1
    while n < y.shape[0]:
        y = np.concatenate([y[:n], y[n:] + y[:-n]])
        n *= 2
    return copy_values(out, np.moveaxis(y, 0, axis))


def _position(extreme: Any, x: Any, out: Traced, axis: int | None = None) -> bool:
    """Record argmax or argmin, which return the first position of the extreme value or of NaN."""
    x, axis = (np.reshape(x, (-1,)), 0) if axis is None else (x, axis % x.ndim)
    n = x.shape[axis]
    if x.dtype not in (np.float32, np.float64) or not 0 < n <= _MOST_COUNTED or not x.size:
        return False
    places = np.arange(n, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
    is_found = (x == extreme(x, axis=axis, keepdims=True)) | np.isnan(x)
    first = np.min(np.where(is_found, places, float(n)), axis=axis)
    return copy_values(out, first)


def _are_true(extreme: Any, x: Traced, axis: Any, dtype: Any, out: Traced) -> bool:
    if x.dtype != np.bool_ or not x.size:
        return False
    found = extreme(x.astype(np.float32), axis=axis) != 0.0
    return copy_values(out, np.reshape(found, out.shape))


def _sum_all(make_loop: Callable[..., Any], arrays: list[Any], out: Traced) -> None:
    """Record a sum over all elements. If the array is large, threads first sum its blocks.

    The block size does not depend on the number of threads, so sums are bitwise reproducible.
    """
    x = layout(arrays[0])
    if not is_large(arrays[0]):
        make_loop(x).run(arrays, [out])
        return
    # Use blocks of whole rows even if the array is a flat view; see `GradientLoop`.
    owners = [y.owner.value for y in arrays if isinstance(y, Traced) and y.owner.value.ndim > 1]
    whole = next((owner for owner in owners if owner.size == arrays[0].size), arrays[0])
    width = whole.shape[-1] if whole.ndim > 1 else 1
    blocks = make_loop(x, rows_of_block(width) * width)
    sums = out.program.empty(blocks.grid[:1], out.dtype)
    blocks.run(arrays, [sums], is_shared=True)
    reduction_loop("sum", layout(sums)).run([sums], [out])


LOWERED: dict[Any, Any] = {
    **{
        getattr(np, name): partial(compute, name)
        for name in (*EXPRESSIONS, *LOGICAL)
        if name not in ("abs", "round", "astype")
    },
    np.absolute: partial(compute, "abs"),
    np.rint: partial(compute, "round"),
    np.square: lambda x, out: compute("multiply", x, x, out),
    np.positive: lambda x, out: copy_values(out, x),
    np.invert: lambda x, out: (
        compute("logical_not", x, out)
        if x.dtype == np.bool_
        else compute("bitwise_xor", x, -1, out)
    ),
    **{
        getattr(np, f"bitwise_{name}"): partial(compute, f"bitwise_{name}")
        for name in ("and", "or", "xor", "left_shift", "right_shift")
    },
    np.matmul: _multiply,
    np.vecdot: _dot,
    np.add.reduce: partial(_reduce, "sum"),
    np.multiply.reduce: partial(_reduce, "prod"),
    np.maximum.reduce: partial(_reduce, "max"),
    np.minimum.reduce: partial(_reduce, "min"),
    np.logical_or.reduce: partial(_are_true, np.max),
    np.logical_and.reduce: partial(_are_true, np.min),
    np.argmax: partial(_position, np.max),
    np.argmin: partial(_position, np.min),
    np.cumsum: _cumulate,
    np.take: take,
    np.take_along_axis: take_along,
    np.concatenate: concatenate,
    np.stack: stack,
    np.copyto: copy_values,
    copy_in_order: copy,
}
