"""Loops written by hand, except matrix products: gathers, sums, the softmax, and gradients."""

from __future__ import annotations

import math
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
    power_of_two,
)
from mlp_xp.backends._numpy.machine_code._products import make_gradient
from mlp_xp.backends._numpy.runtime.tasks import (
    MOST_ARRAYS,
    WORDS,
    FormulaLoop,
    GradientLoop,
    record,
)
from mlp_xp.backends._numpy.runtime.tuning import GRADIENT_BYTES, LEAST_PACKED, PANEL, SCRATCH

_GRADIENT_TASK = record(GradientLoop)
# Where a loop's numbers of rows, columns and elements, and its arrays are in its record.
_WORDS = list(record(FormulaLoop).names or ())
_ROWS, _COLUMNS, _SIZE = map(_WORDS.index, ("n_rows", "n_columns", "size"))
_ARRAYS = _WORDS.index("array_0")
# The number of rows per block, such that a block remains in the cache for several passes.
SOFTMAX_ROWS = 16


@jit
def _pack(source, distance, width, target, n_rows, size):  # type: ignore[no-untyped-def]
    """Copy ``width`` columns of a matrix to rows of ``PANEL`` numbers of ``size`` bytes."""
    for i in range(n_rows):
        copy(source + size * distance * i, target + size * PANEL * i, width * size // 4)


@jit
def sum_rows(x, total, low, high):  # type: ignore[no-untyped-def]
    """Sum the columns from ``low`` to ``high`` by adding slices of rows, which LLVM vectorizes."""
    sums = total[low:high]
    sums[:] = 0
    for i in range(x.shape[0]):
        row = x[i][low:high]
        for j in range(sums.size):
            sums[j] += row[j]


# The Taylor coefficients of e^x, highest power first. For |x| <= ln(2) / 2, they give the precision
# of float64.
_TERMS = tuple(1 / math.factorial(k) for k in range(13, -1, -1))


@jit
def _largest_power(x):  # type: ignore[no-untyped-def]
    """Return the largest integer x for which e^x and e^-x are normal numbers."""
    return x.dtype.type(87 if x.itemsize == 4 else 708)


@jit
def _exp(x, most):  # type: ignore[no-untyped-def]
    """Compute e^x for x clipped to [-most, most], without a function call, so loops are vectorized.

    The result is 2^n times the Taylor series of the remainder, for n = round(x / ln 2).
    """
    number = type(x)
    x = -most if x < -most else (most if x > most else x)  # Propagates NaN.
    n = np.rint(x * number(1 / np.log(2.0)))
    r = x - n * number(np.log(2.0))
    y = number(0)
    for i in range(len(_TERMS)):
        y = y * r + number(_TERMS[i])
    return y * power_of_two(n)


@jit
def copy_runs(n_words, layout, source, out, low, high):  # type: ignore[no-untyped-def]
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


@jit
def add_rows(source, positions, out):  # type: ignore[no-untyped-def]
    """Sum the rows of each position, in their order."""
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[i, k] = 0.0
    for i in range(source.shape[0]):
        row = positions[i]
        row += out.shape[0] if row < 0 else 0
        for k in range(source.shape[1]):
            out[row, k] += source[i, k]


@jit
def _clipped(x, lowest, highest):  # type: ignore[no-untyped-def]
    return lowest if x < lowest else (highest if x > highest else x)  # Propagates NaN.


@jit
def softmax(logits, labels, weights, has_weights, smoothing, value, dlogits, powers, largest):  # type: ignore[no-untyped-def]
    """Compute the average cross-entropy of the rows, and its gradient.

    A label that is not a valid class has a target of zeros, as in `mlp_xp.nn.losses.one_hot`.
    ``powers`` is ``dlogits`` as one vector: with ten classes, a row is too short for vector
    instructions. ``largest`` is work space for `SOFTMAX_ROWS` numbers.
    """
    number = logits.dtype.type
    n, k = logits.shape
    total = number(0)
    if has_weights:
        for i in range(n):
            total += weights[i]
    else:
        total = number(n)
    loss, spread, most = number(0), smoothing / number(k), _largest_power(logits)
    eps = 2.0**-23 if logits.itemsize == 4 else 2.0**-52
    lowest, highest = number(np.log(eps)), number(np.log1p(-eps))
    for first in range(0, n, SOFTMAX_ROWS):
        end = min(first + SOFTMAX_ROWS, n)
        for i in range(first, end):
            row, grad = logits[i], dlogits[i]
            top = row[0]
            for j in range(1, k):
                # This comparison propagates NaN, unlike `row[j] > top`.
                top = row[j] if not (row[j] <= top) else top
            largest[i - first] = top
            for j in range(k):
                grad[j] = row[j] - top
        block = powers[first * k : end * k]
        for i in range(block.size):
            block[i] = _exp(block[i], most)
        for i in range(first, end):
            row, grad, label = logits[i], dlogits[i], labels[i]
            sum_ = number(0)
            for j in range(k):
                sum_ += grad[j]
            # If all weights are 0, the gradient is 0.
            share = (weights[i] if has_weights else number(1)) / total if total != 0 else number(0)
            top, log, of_label = largest[i - first], np.log(sum_), share * (number(1) - smoothing)
            if smoothing != 0:
                for j in range(k):
                    loss -= share * spread * _clipped(row[j] - top - log, lowest, highest)
            factor = share / sum_
            for j in range(k):
                grad[j] = grad[j] * factor - share * spread
            if 0 <= label < k:
                loss -= of_label * _clipped(row[label] - top - log, lowest, highest)
                grad[label] -= of_label
    value[0] = loss


def make_gradient_loop(is_double: bool, _: int) -> Any:
    """Return the unit that computes blocks of a gradient x^T dy, and calls a loop for them.

    The blocks are in ``scratch``, so the loop reads them from the cache. If dy is wide or packed,
    the unit first packs columns of x, since elements of a column with a large stride would compete
    for one cache set.
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
