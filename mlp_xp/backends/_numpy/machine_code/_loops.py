"""Loops written by hand, except matrix products: gathers, sums, the softmax, and updates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray

from mlp_xp.backends._numpy.machine_code._adam import adam
from mlp_xp.backends._numpy.machine_code._cpu import find_tile
from mlp_xp.backends._numpy.machine_code._intrinsics import (
    copy,
    jit,
    pointer,
    power_of_two,
    start_of,
)
from mlp_xp.backends._numpy.machine_code._products import make_gradient
from mlp_xp.backends._numpy.machine_code._tile import ROWS, TILE
from mlp_xp.backends._numpy.native.jobs import (
    ADAM,
    UPDATED_ARRAY,
    Update,
    record,
)
from mlp_xp.backends._numpy.native.tuning import (
    FUSED_ROW,
    LEAST_PACKED,
    MAIL_OF_THREAD,
    PANEL,
)

_UPDATE_JOB = record(Update)
# The number of rows of a gradient that an update computes at a time, a divisor of `PANEL`. More
# rows reuse a packed panel of dy more often.
_GRADIENT_ROWS = 6 * ROWS if TILE.packs_small else ROWS
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


@jit
def gather(x, rows, has_rows, shift, scale, has_scaling, out, low, high, left, right):  # type: ignore[no-untyped-def]
    number = out.dtype.type
    for i in range(low, high):
        source, target = x[rows[i] if has_rows else i][left:right], out[i][left:right]
        if has_scaling:
            for j in range(target.size):
                target[j] = (number(source[j]) - shift[left + j]) * scale[left + j]
        else:
            for j in range(target.size):
                target[j] = number(source[j])


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


@jit
def _sgd(p, g, v, rate, momentum, nesterov, l2):  # type: ignore[no-untyped-def]
    total = p.dtype.type(0)
    for i in range(p.size):
        total += p[i] * p[i]
        step = rate * (g[i] + l2 * p[i])
        v[i] = momentum * v[i] - step
        p[i] += momentum * v[i] - step if nesterov else v[i]
    return total


def make_update(is_double: bool, rule: int) -> Any:
    """Return the unit that updates arrays and sums the squares of matrices for the L2 penalty.

    A gradient may be a product x^T dy that has not been computed yet (see `fused`). The unit then
    computes a few rows of the gradient at a time in ``scratch``, and uses them while they are in
    the cache. If dy is wide or packed, the unit first packs columns of x, since elements of a
    column with a large stride would compete for one cache set.
    """
    number, size_of = (np.float64, 8) if is_double else (np.float32, 4)
    is_adam, computes = rule == ADAM, find_tile() is not None
    gradient: Any = make_gradient(is_double) if computes else None

    @jit
    def step(low, high, array, g, numbers, rate, shrink, l2):  # type: ignore[no-untyped-def]
        """Update an array from ``low`` to ``high``; g is the address of this part's gradients."""
        offset, n = low * size_of, high - low
        p, first = array.param + offset, array.state_1 + offset
        if is_adam:
            second = array.state_2 + offset
            beta_1, rest_1 = number(numbers[0]), number(numbers[1])
            beta_2, rest_2, epsilon = number(numbers[2]), number(numbers[3]), number(numbers[4])
            return adam(
                n, p, g, first, second, rate, shrink, beta_1, rest_1, beta_2, rest_2, epsilon, l2
            )
        params, grads = carray(pointer(p), n, number), carray(pointer(g), n, number)
        velocity = carray(pointer(first), n, number)
        return _sgd(params, grads, velocity, rate, number(numbers[0]), numbers[1] != 0, l2)

    def update(address, thread, n_threads, totals, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _UPDATE_JOB)[0]
        arrays = carray(pointer(job.arrays), job.n_arrays, UPDATED_ARRAY)
        numbers = carray(pointer(job.constants), 5, np.float64)
        rate = carray(pointer(job.rate), 1, number)[0]
        l2 = carray(pointer(job.l2), 1, number)[0] if job.l2 else number(0)
        shrink = carray(pointer(job.shrink), 1, number)[0] if job.shrink else number(1)
        total, panel = number(0), scratch + _GRADIENT_ROWS * FUSED_ROW
        for i in range(job.n_arrays):
            array = arrays[i]
            l2_here = l2 if array.is_matrix else number(0)
            shrink_here = shrink if array.is_matrix else number(1)
            squares = number(0)
            if computes and array.n_samples:
                width, fan_in = array.width, array.size // array.width
                low = start_of(thread, n_threads, fan_in)
                high = start_of(thread + 1, n_threads, fan_in)
                for k in range(low, high, _GRADIENT_ROWS):
                    end = min(k + _GRADIENT_ROWS, high)
                    left, distance = array.x + size_of * k, fan_in
                    if array.panel or width >= LEAST_PACKED:
                        place = (k - low) % PANEL
                        if place == 0:
                            n_packed = min(PANEL, high - k)
                            _pack(left, fan_in, n_packed, panel, array.n_samples, size_of)
                        left, distance = panel + size_of * place, PANEL
                    dy, n = array.dy, array.n_samples
                    gradient(left, distance, dy, array.panel, scratch, end - k, width, n)
                    squares += step(
                        k * width, end * width, array, scratch, numbers, rate, shrink_here, l2_here
                    )
            else:
                low = start_of(thread, n_threads, array.size)
                high = start_of(thread + 1, n_threads, array.size)
                g = array.grad + low * size_of
                squares = step(low, high, array, g, numbers, rate, shrink_here, l2_here)
            if array.is_matrix:
                total += squares
        sums = carray(pointer(totals), MAIL_OF_THREAD * n_threads, np.float64)
        sums[MAIL_OF_THREAD * thread] = total

    return update
