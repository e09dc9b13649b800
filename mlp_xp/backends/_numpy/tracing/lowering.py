"""NumPy operations of a traced step that machine code computes, so that threads share the work.

Each function records kernel calls that compute an operation, or returns False if it does not know
the operands. Only programs with machine code import this module.
"""

from __future__ import annotations

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
from mlp_xp.compiler.elementary import EXPRESSIONS, LOGICAL

# NumPy multiplies larger stacks of matrices, whose table of calls would be large.
_MOST_PRODUCTS = 1024
# One thread sums the rows of narrower matrices.
_LEAST_WIDTH = 32
_LOOP_DTYPES = (np.float32, np.float64, np.int32, np.bool_)
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
    if not _are_arrays(a, b) or min(a.ndim, b.ndim) < 2 or out.size == 0 or not are_contiguous(out):
        return False
    if a.dtype != out.dtype or b.dtype != out.dtype or any(_share_memory(x, out) for x in (a, b)):
        return False
    stack = out.shape[:-2]
    a, b = (np.broadcast_to(x, (*stack, *x.shape[-2:])) for x in (a, b))
    places = list(np.ndindex(stack))
    ta, tb = (not has_rows(x[places[0]]) for x in (a, b))
    a, b = (np.swapaxes(x, -1, -2) if is_t else x for x, is_t in ((a, ta), (b, tb)))
    if (ta and tb) or not (has_rows(a[places[0]]) and has_rows(b[places[0]])):
        return False
    if len(places) > _MOST_PRODUCTS:
        return False
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


def _reduce(name: str, x: Traced, axis: Any, dtype: Any, out: Traced) -> bool:
    """Record the sum, the largest or the smallest number along axes.

    What is reduced are the rows, or the columns if the last axis is kept in a sum.
    """
    if (
        dtype not in (None, x.dtype)
        or not are_contiguous(out)
        or x.dtype != out.dtype
        or x.size == 0
    ):
        return False
    given = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = sorted(axis % x.ndim for axis in given)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    sums_columns = name == "sum" and kept[-1:] == [x.ndim - 1]
    ordered = _in_order(x, (*axes, *kept) if sums_columns else (*kept, *axes))
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


def _in_order(x: Traced, axes: Sequence[int]) -> Traced | None:
    """Return an array with permuted axes in row-major order; None if it cannot be copied."""
    turned: Any = np.transpose(x, axes)
    if are_contiguous(turned):
        return turned
    copied = x.program.empty(turned.shape, x.dtype)
    return copied if _copy(copied, turned) else None


def _take(source: Any, rows: Any, out: Traced, axis: int | None = None) -> bool:
    if not isinstance(rows, Traced):
        if axis is None or not isinstance(rows, np.ndarray) or rows.ndim != 1:
            return False
        return _take_blocks(source, rows, out, axis)
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
        out.program.task(Task(Take(False, source.shape[0], out.shape[0], width, source, rows, out)))
    return is_known


def _take_blocks(source: Any, positions: np.ndarray, out: Traced, axis: int) -> bool:
    """Record copies of the blocks at fixed positions, which are consecutive or equal."""
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
    is_known = _are_arrays(a, b) and a.ndim == b.ndim == 1 and a.shape == b.shape and a.size > 0
    if not is_known or not are_contiguous(a, b, out):
        return False
    _sum_all(dot_loop, [a, b], out)
    return True


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
        for name in (*EXPRESSIONS, *LOGICAL, "where")
        if name not in ("abs", "round", "astype")
    },
    np.absolute: partial(_compute, "abs"),
    np.rint: partial(_compute, "round"),
    np.square: lambda x, out: _compute("multiply", x, x, out),
    np.invert: lambda x, out: x.dtype == bool and _compute("logical_not", x, out),
    **{
        getattr(np, f"bitwise_{name}"): partial(_compute, f"bitwise_{name}")
        for name in ("and", "or", "xor", "left_shift", "right_shift")
    },
    np.matmul: _multiply,
    np.vecdot: _dot,
    np.add.reduce: partial(_reduce, "sum"),
    np.maximum.reduce: partial(_reduce, "max"),
    np.minimum.reduce: partial(_reduce, "min"),
    np.take: _take,
    np.concatenate: _concatenate,
    np.stack: _stack,
    np.copyto: _copy_values,
    copy_in_order: _copy,
}
