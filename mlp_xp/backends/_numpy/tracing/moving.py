"""Record kernel calls that copy or gather elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from mlp_xp.backends._numpy.kernels.views import merge_axes
from mlp_xp.backends._numpy.runtime.tasks import Copy, Take, Task
from mlp_xp.backends._numpy.runtime.tuning import LEAST_NUMBERS
from mlp_xp.backends._numpy.tracing.elementwise import are_arrays, copy_values
from mlp_xp.backends._numpy.tracing.traced import Traced

# The maximum number of blocks that are copied one by one.
_MOST_BLOCKS = 16
# The number of axes of a copy, excluding the contiguous last axis.
_MOST_AXES = 5


def in_order(x: Any) -> Any:
    """Return a C-contiguous array, or None if it cannot be copied."""
    if x.flags.c_contiguous and x.flags.aligned:
        return x
    if not isinstance(x, Traced):
        return np.ascontiguousarray(x)
    copied = x.program.empty(x.shape, x.dtype)
    return copied if copy(copied, x) else None


def copy(out: Traced, source: Traced) -> bool:
    """Record a C-contiguous copy of an array with permuted axes."""
    turned: Any = np.reshape(out, source.shape)
    return _copy_runs(turned, source) or copy_values(turned, source)


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


def concatenate(arrays: Sequence[Any], out: Traced, axis: int | None = 0) -> bool:
    """Record a concatenation, as copies of the arrays to parts of the result."""
    if axis is None or not are_arrays(*arrays):
        return False
    stops = list(accumulate(x.shape[axis] for x in arrays))
    before = [slice(None)] * (axis % out.ndim)
    parts = [out[(*before, slice(*ends))] for ends in pairwise([0, *stops])]
    found = zip(parts, arrays, strict=True)
    return all(not x.size or copy_values(part, x) for part, x in found)


def stack(arrays: Sequence[Any], out: Traced, axis: int = 0) -> bool:
    is_known = are_arrays(*arrays)
    return is_known and concatenate([np.expand_dims(x, axis) for x in arrays], out, axis)


def take(source: Any, positions: Any, out: Traced, axis: int | None = None) -> bool:
    if axis is None or not are_arrays(source, positions):
        return False
    axis %= source.ndim
    if not isinstance(positions, Traced) and _take_blocks(source, positions, out, axis):
        return True
    *outer, size = source.shape[: axis + 1]
    starts = size * _counted((*outer, *[1] * positions.ndim))
    return _take_rows(source, axis + 1, positions, starts, size, out)


def take_along(source: Any, positions: Any, out: Traced, axis: int = -1) -> bool:
    if not are_arrays(source, positions) or source.ndim != positions.ndim:
        return False
    axis %= source.ndim
    # Trailing axes along which positions are constant form a row.
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

    All axes after the first ``n_axes`` form a row. Positions range from -``size`` to ``size`` - 1.
    """
    row_bytes = math.prod(source.shape[n_axes:]) * source.itemsize
    if not source.size or not out.size:
        return False
    source, program = in_order(source), out.program
    if source is None:
        return False
    positions = _as_int32(positions)

    def record(size: int, row_bytes: int, chosen: Any) -> None:
        rows = in_order(np.reshape(chosen, (-1,)))
        fields = Take(False, size, rows.shape[0], row_bytes, source, rows, out)
        program.task(Task(fields, out.size >= LEAST_NUMBERS))

    if starts.size > 1 or step > 1:
        record(size, 0, positions)  # This only checks the positions.
        positions = np.where(positions < 0, positions + size, positions) * step + starts
        size = math.prod(source.shape[:n_axes])
    record(size, row_bytes, positions)
    return True


def _as_int32(positions: Any) -> Any:
    if positions.dtype == np.int64:  # Positions outside int32 are out of range anyway.
        positions = np.maximum(np.minimum(positions, 2**31 - 1), -(2**31))
    return positions.astype(np.int32, copy=False)


def _take_blocks(source: Any, positions: np.ndarray, out: Traced, axis: int) -> bool:
    """Record copies of blocks, which are runs of consecutive or equal positions."""
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
    return concatenate(blocks, out, axis)
