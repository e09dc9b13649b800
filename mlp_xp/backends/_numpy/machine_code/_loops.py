"""Handwritten loops that copy, sum, or compute gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from mlp_xp.backends._numpy.machine_code._intrinsics import (
    at_least_one,
    call,
    copy,
    jit,
    part_of,
    pointer,
    start_of,
)
from mlp_xp.backends._numpy.machine_code._products import by_columns, make_gradient
from mlp_xp.backends._numpy.runtime.tasks import (
    HEADER,
    MOST_ARRAYS,
    WORDS,
    AddRows,
    ColumnSums,
    Copy,
    FormulaLoop,
    GradientLoop,
    Group,
    Take,
    record,
)
from mlp_xp.backends._numpy.runtime.tuning import GRADIENT_BYTES, LEAST_PACKED, PANEL, SCRATCH

_COLUMN_SUMS_TASK, _ADD_ROWS_TASK, _TAKE_TASK = map(record, (ColumnSums, AddRows, Take))
_COPY_TASK, _GROUP_TASK, _GRADIENT_TASK = map(record, (Copy, Group, GradientLoop))
# Positions of fields in a loop's record: numbers of rows, columns and elements, and arrays.
_WORDS = list(record(FormulaLoop).names or ())
_ROWS, _COLUMNS, _SIZE = map(_WORDS.index, ("n_rows", "n_columns", "size"))
_ARRAYS = _WORDS.index("array_0")


@jit
def _pack(source, distance, width, target, n_rows, size):  # type: ignore[no-untyped-def]
    """Copy ``width`` columns of a matrix to rows of ``PANEL`` numbers of ``size`` bytes."""
    for i in range(n_rows):
        copy(source + size * distance * i, target + size * PANEL * i, width * size // 4)


def make_column_sums(is_double: bool, _: int) -> Any:
    """Return the unit that sums columns by adding row slices, which LLVM vectorizes."""
    number = np.float64 if is_double else np.float32

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        task = carray(pointer(address), 1, _COLUMN_SUMS_TASK)[0]
        n = task.n_columns
        low, high = start_of(thread, n_threads, n), start_of(thread + 1, n_threads, n)
        x = carray(pointer(task.x), (task.n_rows, n), number)
        sums = carray(pointer(task.sums), n, number)[low:high]
        sums[:] = 0
        for i in range(x.shape[0]):
            row = x[i][low:high]
            for j in range(sums.size):
                sums[j] += row[j]

    return unit


def make_take(is_double: bool, _: int) -> Any:
    """Return the unit that copies rows; threads divide the rows or the columns."""

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        task = carray(pointer(address), 1, _TAKE_TASK)[0]
        n, width = task.n_rows, task.width
        low, high, left, right = 0, n, 0, width
        if by_columns(width // 4, n_threads):
            left, right = start_of(thread, n_threads, width), start_of(thread + 1, n_threads, width)
        else:
            low, high = start_of(thread, n_threads, n), start_of(thread + 1, n_threads, n)
        positions = carray(pointer(task.positions), n, np.int32)
        n_source, source, out = task.n_source, task.source + left, task.out + left
        n_words = (right - left) // 4
        for i in range(low, high):
            row = positions[i]
            row += n_source if row < 0 else 0
            x, y = source + width * row, out + width * i
            copy(x, y, n_words)
            for j in range(4 * n_words, right - left):
                carray(pointer(y), width, np.uint8)[j] = carray(pointer(x), width, np.uint8)[j]

    return unit


def make_add_rows(is_double: bool, _: int) -> Any:
    """Return the unit that sums the rows with the same position, in order."""
    number = np.float64 if is_double else np.float32

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        task = carray(pointer(address), 1, _ADD_ROWS_TASK)[0]
        source = carray(pointer(task.source), (task.n_rows, task.width), number)
        positions = carray(pointer(task.positions), task.n_rows, np.int32)
        out = carray(pointer(task.out), (task.n_sums, task.width), number)
        out[:] = 0
        for i in range(source.shape[0]):
            row = positions[i]
            row += out.shape[0] if row < 0 else 0
            for k in range(source.shape[1]):
                out[row, k] += source[i, k]

    return unit


@jit
def _copy_runs(n_words, layout, source, out, low, high):  # type: ignore[no-untyped-def]
    """Copy runs of words between two addresses, from ``low`` to ``high`` along the first axis."""
    lengths, from_, to = layout[0], layout[1], layout[2]
    for i0 in range(low, high):
        for i1 in range(lengths[1]):
            for i2 in range(lengths[2]):
                for i3 in range(lengths[3]):
                    first = i0 * from_[0] + i1 * from_[1] + i2 * from_[2] + i3 * from_[3]
                    target = i0 * to[0] + i1 * to[1] + i2 * to[2] + i3 * to[3]
                    for i4 in range(lengths[4]):
                        x = source + 8 * (first + i4 * from_[4])
                        y = out + 8 * (target + i4 * to[4])
                        copy(x, y, 2 * n_words)


def make_copy(is_double: bool, _: int) -> Any:
    """Return the unit that copies runs of words; threads divide the first axis."""

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        task = carray(pointer(address), 1, _COPY_TASK)[0]
        layout = carray(pointer(task.layout), (3, 5), np.int64)
        n = layout[0, 0]
        low, high = n * thread // n_threads, n * (thread + 1) // n_threads
        _copy_runs(task.n_words, layout, task.source, task.out, low, high)

    return unit


def make_group(is_double: bool, _: int) -> Any:
    """Return the unit that runs a group of kernel calls; threads divide its parts."""

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        group = carray(pointer(address), 1, _GROUP_TASK)[0]
        first = group.n_parts * thread // n_threads
        last = group.n_parts * (thread + 1) // n_threads
        for i in range(first * group.n_tasks, last * group.n_tasks):
            place = group.table + 8 * WORDS * i
            task = carray(pointer(place), 1, HEADER)[0]
            call(task.code, place, 0, 1, scratch)

    return unit


def make_gradient_loop(is_double: bool, _: int) -> Any:
    """Return the unit that computes a gradient x^T dy in blocks, and calls a loop for each.

    The blocks are stored in ``scratch``, so the loop reads them from the cache. If dy is wide or
    packed, the unit first packs columns of x, since elements with a large stride would compete for
    the same cache set.
    """
    size_of = 8 if is_double else 4
    gradient: Any = make_gradient(is_double)

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        task = carray(pointer(address), 1, _GRADIENT_TASK)[0]
        width, n_samples = task.width, task.n_samples
        strides = carray(pointer(task.strides), MOST_ARRAYS, np.int64)
        given = carray(pointer(task.table), WORDS, np.int64)
        panel, record_ = scratch + GRADIENT_BYTES, scratch + SCRATCH - 8 * WORDS
        loop = carray(pointer(record_), WORDS, np.int64)
        copy(task.table, record_, 2 * WORDS)
        loop[_ARRAYS + task.place] = scratch
        at_once = at_least_one(task.n_rows * task.n_blocks)
        low = part_of(thread, n_threads, task.fan_in, at_once)
        high = part_of(thread + 1, n_threads, task.fan_in, at_once)
        for first in range(low, high, at_once):
            end = min(first + at_once, high)
            for k in range(first, end, PANEL):
                left, distance, rows = task.x + size_of * k, task.fan_in, min(PANEL, end - k)
                if task.panel or width >= LEAST_PACKED:
                    place = (k - low) % PANEL
                    if place == 0:
                        n_packed = min(PANEL, high - k)
                        _pack(left, distance, n_packed, panel, n_samples, size_of)
                    left, distance = panel + size_of * place, PANEL
                out = scratch + size_of * (k - first) * width
                gradient(left, distance, task.dy, task.panel, out, rows, width, n_samples)
            block = first // at_least_one(task.n_rows)
            for i in range(MOST_ARRAYS):
                if i != task.place:
                    loop[_ARRAYS + i] = given[_ARRAYS + i] + strides[i] * block
            n = (end - first) * width
            loop[_ROWS] = -(-(end - first) // at_least_one(task.n_rows))
            loop[_COLUMNS], loop[_SIZE] = min(n, task.n_rows * width), n
            call(loop[0], record_, 0, 1, scratch)

    return unit
