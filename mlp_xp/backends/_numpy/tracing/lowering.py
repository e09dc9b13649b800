"""NumPy operations of a traced step that machine code computes, so that threads share the work.

Each function records kernel calls that compute an operation, or returns False if it does not know
the operands. Only programs with machine code import this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from mlp_xp.backends._numpy.kernels.formulas import (
    Sized,
    dot_loop,
    elementwise_kernel,
    is_large,
    layout,
    reduction_loop,
)
from mlp_xp.backends._numpy.kernels.products import LEAST_PRODUCTS, choose_packed, product_tasks
from mlp_xp.backends._numpy.kernels.views import arrange, merge_axes
from mlp_xp.backends._numpy.kernels.writing import are_contiguous, has_rows
from mlp_xp.backends._numpy.runtime.tasks import (
    ColumnSums,
    Copy,
    Take,
    Task,
    address,
)
from mlp_xp.backends._numpy.runtime.tuning import LEAST_NUMBERS, rows_of_block
from mlp_xp.backends._numpy.tracing.operations import copy_in_order
from mlp_xp.backends._numpy.tracing.traced import Traced, value_of
from mlp_xp.compiler.cpu_expressions import EXPRESSIONS, LOGICAL

# NumPy multiplies larger stacks of matrices, whose table of calls would be large.
_MOST_PRODUCTS = 1024
# One thread sums the rows of narrower matrices.
_LEAST_WIDTH = 32
_LOOP_DTYPES = (np.float32, np.float64, np.int32, np.int64, np.bool_)
# All integers up to this one are float32 numbers.
_MOST_COUNTED = 1 << 24
# The most blocks of positions that are copied one by one.
_MOST_BLOCKS = 16
# The number of axes of a copy, besides the contiguous last one.
_MOST_AXES = 5


def _are_arrays(*operands: Any) -> bool:
    return all(isinstance(x, Traced | np.ndarray) for x in operands)


def _compute(name: str, *operands: Any) -> bool:
    """Record a loop for an elementwise function; the last operand is the result."""
    *inputs, out = operands
    dtypes = [x.dtype for x in inputs if hasattr(x, "dtype")]
    like = out.dtype if name == "where" else dtypes[0]
    numbers = [x for x in inputs if not hasattr(x, "dtype")]
    if np.result_type(like, *numbers) != like:  # For example, integers are compared with 0.5.
        return False
    if like == np.int32 and any(x not in range(-(2**31), 2**31) for x in numbers):
        return False  # NumPy compares them, too.
    if name != "pow":  # Exponents such as 2 or 0.5 have other formulas.
        # The memory of NumPy's scalars is freed, too, unless they become arrays.
        inputs = [np.asarray(x, getattr(x, "dtype", like)) if np.isscalar(x) else x for x in inputs]
    arrays = [x for x in inputs if _are_arrays(x)]
    if not all(map(_is_readable, (*arrays, out))) or out.size == 0:
        return False
    clashes = [x for x in arrays if _share_memory(x, out)]
    if any(not _are_same(x, out) for x in clashes):
        return False
    first = next((i for i, x in enumerate(arrays) if clashes and x is clashes[0]), None)
    given = tuple(x.dtype.name if _are_arrays(x) else float(x) for x in inputs)
    kernel = elementwise_kernel(name, given, first)
    if kernel is None or kernel.results[0].dtype != out.dtype.name:
        return False
    arranged = arrange([*arrays, out], out.shape)
    if arranged is None:
        return False
    grid, layouts, (*arrays, result) = arranged
    sized = Sized(kernel._replace(layouts=layouts), grid)
    sized.run(arrays, [result], is_shared=is_large(out))
    return True


def _is_readable(x: Any) -> bool:
    """Whether loops can read an array of numbers or truth values."""
    is_aligned = x.flags.aligned and not any(step % x.itemsize for step in x.strides)
    return x.dtype in _LOOP_DTYPES and is_aligned


def _share_memory(x: Any, out: Traced) -> bool:
    return np.may_share_memory(value_of(x), out.value)


def _are_same(x: Any, out: Traced) -> bool:
    same = (x.shape, x.strides, address(x)) == (out.shape, out.strides, address(out))
    return same and x.dtype == out.dtype


def _multiply(a: Any, b: Any, out: Traced) -> bool:
    """Record the product of two matrices, or of the matrices in two stacks."""
    if not _are_arrays(a, b) or out.size == 0 or not are_contiguous(out):
        return False
    if b.ndim == 1:  # A vector is a column on the right, and a row on the left.
        return _multiply(a, b[:, None], out[..., None])
    if a.ndim == 1:
        return _multiply(a[None], b, out[..., None, :])
    if a.dtype != out.dtype or b.dtype != out.dtype or any(_share_memory(x, out) for x in (a, b)):
        return False
    stack = out.shape[:-2]
    places = list(np.ndindex(stack))
    if len(places) > _MOST_PRODUCTS:
        return False
    (a, ta), (b, tb) = map(_as_factor, (a, b))
    if ta and tb:
        a, ta = _in_order(np.swapaxes(a, -1, -2)), False
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
    """Return an array of matrices that have rows without gaps, and whether they are transposed."""
    first = x[(0,) * (x.ndim - 2)]
    if has_rows(first) or not has_rows(first.T):
        return x if has_rows(first) else _in_order(x), False
    return np.swapaxes(x, -1, -2), True


def _reduce(name: str, x: Traced, axis: Any, dtype: Any, out: Traced) -> bool:
    """Record the sum, the product, the largest or the smallest number along axes.

    What is reduced are the rows, or the columns if the last axis is kept in a sum.
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
    ordered = _in_order(np.transpose(x, (*axes, *kept) if sums_columns else (*kept, *axes)))
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


def _in_order(x: Any) -> Any:
    """Return an array in row-major order; None if it cannot be copied."""
    if x.flags.c_contiguous and x.flags.aligned:
        return x
    if not isinstance(x, Traced):
        return np.ascontiguousarray(x)
    copied = x.program.empty(x.shape, x.dtype)
    return copied if _copy(copied, x) else None


def _take(source: Any, positions: Any, out: Traced, axis: int | None = None) -> bool:
    if axis is None or not _are_arrays(source, positions):
        return False
    axis %= source.ndim
    if not isinstance(positions, Traced) and _take_blocks(source, positions, out, axis):
        return True
    *outer, size = source.shape[: axis + 1]
    starts = size * _counted((*outer, *[1] * positions.ndim))
    return _take_rows(source, axis + 1, positions, starts, size, out)


def _take_along(source: Any, positions: Any, out: Traced, axis: int = -1) -> bool:
    if not _are_arrays(source, positions) or source.ndim != positions.ndim:
        return False
    axis %= source.ndim
    # Numbers that differ only along trailing axes with the same position are rows.
    n_axes = max((i + 1 for i, n in enumerate(positions.shape) if n > 1), default=0)
    n_axes = max(n_axes, axis + 1)
    starts = _counted(source.shape[:n_axes])[(*[slice(None)] * axis, slice(1))]
    starts = np.reshape(starts, (*starts.shape, *[1] * (source.ndim - n_axes)))
    step = math.prod(source.shape[axis + 1 : n_axes])
    return _take_rows(source, n_axes, positions, starts, source.shape[axis], out, step)


def _counted(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(math.prod(shape), dtype=np.int32).reshape(shape)


def _take_rows(
    source: Any,
    n_axes: int,
    positions: Any,
    starts: np.ndarray,
    size: int,
    out: Traced,
    step: int = 1,
) -> bool:
    """Record copies of the rows at positions times ``step`` plus ``starts``.

    All axes but the first ``n_axes`` are a row. Positions are from -``size`` to ``size`` - 1.
    """
    row_bytes = math.prod(source.shape[n_axes:]) * source.itemsize
    if row_bytes % 4 or not source.size or not out.size:
        return False
    source, program = _in_order(source), out.program
    if source is None:
        return False
    positions = _as_int32(positions)

    def take(size: int, n_words: int, chosen: Any) -> None:
        rows = _in_order(np.reshape(chosen, (-1,)))
        program.task(Task(Take(False, size, rows.shape[0], n_words, source, rows, out)))

    if starts.size > 1 or step > 1:
        take(size, 0, positions)  # This only checks the positions.
        positions = np.where(positions < 0, positions + size, positions) * step + starts
        size = math.prod(source.shape[:n_axes])
    take(size, row_bytes // 4, positions)
    return True


def _as_int32(positions: Any) -> Any:
    if positions.dtype == np.int64:  # Positions that int32 lacks are out of range, too.
        positions = np.maximum(np.minimum(positions, 2**31 - 1), -(2**31))
    return positions.astype(np.int32, copy=False)


def _take_blocks(source: Any, positions: np.ndarray, out: Traced, axis: int) -> bool:
    """Record copies of the blocks at fixed positions, which are consecutive or equal."""
    if positions.ndim != 1:
        return False
    runs: list[list[int]] = []
    for position in (positions % source.shape[axis]).tolist():
        step = position - runs[-1][-1] if runs else -1
        if step in (0, 1) and position == runs[-1][0] + step * len(runs[-1]):
            runs[-1].append(position)
        else:
            runs.append([position])
    if len(runs) > _MOST_BLOCKS:
        return False
    blocks, axis = [], axis % out.ndim
    for run in runs:
        block = source[(*[slice(None)] * axis, slice(run[0], run[-1] + 1))]
        shape = (*out.shape[:axis], len(run), *out.shape[axis + 1 :])
        blocks.append(np.broadcast_to(block, shape))
    return _concatenate(blocks, out, axis)


def _copy_values(out: Traced, x: Any) -> bool:
    return _are_arrays(x) and out.dtype in _LOOP_DTYPES and _compute(out.dtype.name, x, out)


def _concatenate(arrays: Sequence[Any], out: Traced, axis: int | None = 0) -> bool:
    """Record copies of arrays to their parts of the result."""
    if axis is None or not _are_arrays(*arrays):
        return False
    stops = list(accumulate(x.shape[axis] for x in arrays))
    before = [slice(None)] * (axis % out.ndim)
    parts = [out[(*before, slice(*ends))] for ends in pairwise([0, *stops])]
    found = zip(parts, arrays, strict=True)
    return all(not x.size or _copy_values(part, x) for part, x in found)


def _stack(arrays: Sequence[Any], out: Traced, axis: int = 0) -> bool:
    is_known = _are_arrays(*arrays)
    return is_known and _concatenate([np.expand_dims(x, axis) for x in arrays], out, axis)


def _dot(a: Any, b: Any, out: Traced) -> bool:
    if not _are_arrays(a, b) or a.shape != b.shape or a.ndim != 1 or not a.size:
        return _reduce("sum", a * b, -1, None, out)
    if not are_contiguous(a, b, out):
        return False
    _sum_all(dot_loop, [a, b], out)
    return True


def _cumulate(x: Any, out: Traced, axis: int | None = None) -> bool:
    """Record cumulative sums: of 2, 4, 8 ... numbers up to each."""
    if axis is None or not x.size:
        return False
    y, n = np.moveaxis(x, axis, 0), 1
    while n < y.shape[0]:
        y = np.concatenate([y[:n], y[n:] + y[:-n]])
        n *= 2
    return _copy_values(out, np.moveaxis(y, 0, axis))


def _position(extreme: Any, x: Any, out: Traced, axis: int | None = None) -> bool:
    """Record the position of the first largest or smallest number; NaN is both."""
    x, axis = (np.reshape(x, (-1,)), 0) if axis is None else (x, axis % x.ndim)
    n = x.shape[axis]
    if x.dtype not in (np.float32, np.float64) or not 0 < n <= _MOST_COUNTED or not x.size:
        return False
    places = np.arange(n, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
    is_found = (x == extreme(x, axis=axis, keepdims=True)) | np.isnan(x)
    first = np.min(np.where(is_found, places, float(n)), axis=axis)
    return _copy_values(out, first)


def _are_true(extreme: Any, x: Traced, axis: Any, dtype: Any, out: Traced) -> bool:
    if x.dtype != np.bool_ or not x.size:
        return False
    found = extreme(x.astype(np.float32), axis=axis) != 0.0
    return _copy_values(out, np.reshape(found, out.shape))


def _sum_all(make_loop: Callable[..., Any], arrays: list[Any], out: Traced) -> None:
    """Record a sum over all numbers: of large arrays in blocks that threads share, then of those.

    Blocks have the same size for every number of threads, so the sum has the same bits.
    """
    x = layout(arrays[0])
    if not is_large(arrays[0]):
        make_loop(x).run(arrays, [out])
        return
    # Blocks of whole rows, also if the array is a view as one vector; see `GradientLoop`.
    owners = [y.owner.value for y in arrays if isinstance(y, Traced) and y.owner.value.ndim > 1]
    whole = next((owner for owner in owners if owner.size == arrays[0].size), arrays[0])
    width = whole.shape[-1] if whole.ndim > 1 else 1
    blocks = make_loop(x, rows_of_block(width) * width)
    sums = out.program.empty(blocks.grid[:1], out.dtype)
    blocks.run(arrays, [sums], is_shared=True)
    reduction_loop("sum", layout(sums)).run([sums], [out])


def _copy(out: Traced, source: Traced) -> bool:
    """Record a copy of an array with permuted axes in row-major order."""
    turned: Any = np.reshape(out, source.shape)
    return _copy_runs(turned, source) or _copy_values(turned, source)


def _copy_runs(out: Traced, source: Traced) -> bool:
    size = source.itemsize
    if out.size < LEAST_NUMBERS or size not in (4, 8) or not source.flags.aligned:
        return False
    axes = merge_axes(source.shape, [source.strides, out.strides])
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
    out.program.task(Task(Copy(False, n_words, layout, source, out), True))
    return True


LOWERED: dict[Any, Any] = {
    **{
        getattr(np, name): partial(_compute, name)
        for name in (*EXPRESSIONS, *LOGICAL)
        if name not in ("abs", "round", "astype")
    },
    np.absolute: partial(_compute, "abs"),
    np.rint: partial(_compute, "round"),
    np.square: lambda x, out: _compute("multiply", x, x, out),
    np.positive: lambda x, out: _copy_values(out, x),
    np.invert: lambda x, out: (
        _compute("logical_not", x, out)
        if x.dtype == np.bool_
        else _compute("bitwise_xor", x, -1, out)
    ),
    **{
        getattr(np, f"bitwise_{name}"): partial(_compute, f"bitwise_{name}")
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
    np.take: _take,
    np.take_along_axis: _take_along,
    np.concatenate: _concatenate,
    np.stack: _stack,
    np.copyto: _copy_values,
    copy_in_order: _copy,
}
