"""Handwritten code for the mean softmax cross-entropy of a matrix and its gradient.

A row stays in registers between passes, so this is faster than the compiler's loops.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray

from mlp_xp.backends._numpy.machine_code._intrinsics import jit, pointer, power_of_two
from mlp_xp.backends._numpy.runtime.tasks import Softmax, record

_SOFTMAX_TASK = record(Softmax)
# The number of rows per block; a block stays in the cache for several passes.
_ROWS = 16
# The Taylor coefficients of e^x, highest power first. For |x| <= ln(2) / 2, they give float64
# precision.
_TERMS = tuple(1 / math.factorial(k) for k in range(13, -1, -1))


@jit
def _exp(x, most):  # type: ignore[no-untyped-def]
    """Compute e^x for x clipped to [-most, most], inline so that loops are vectorized.

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
def _clipped(x, lowest, highest):  # type: ignore[no-untyped-def]
    return lowest if x < lowest else (highest if x > highest else x)  # Propagates NaN.


def make_softmax(is_double: bool, _: int) -> Any:
    """Return the unit that computes the rows' cross-entropy and its gradient.

    The target of an invalid label is all zeros, as in `mlp_xp.nn.losses.one_hot`.
    """
    number: Any = np.float64 if is_double else np.float32
    eps = float(np.finfo(number).eps)
    lowest, highest = number(math.log(eps)), number(math.log1p(-eps))
    most = number(708 if is_double else 87)  # e^708 and e^-708 are normal numbers of float64.

    def unit(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        task = carray(pointer(address), 1, _SOFTMAX_TASK)[0]
        n, k = task.n, task.k
        logits = carray(pointer(task.logits), (n, k), number)
        labels = carray(pointer(task.labels), n, np.int32)
        weights = carray(pointer(task.weights), n, number)
        smoothing = number(carray(pointer(task.smoothing), 1, np.float64)[0])
        value = carray(pointer(task.value), 1, number)
        dlogits = carray(pointer(task.dlogits), (n, k), number)
        # As one vector: with ten classes, a row is too short for vector instructions.
        powers = carray(pointer(task.dlogits), n * k, number)
        largest = carray(pointer(scratch), _ROWS, number)
        total = number(0)
        if task.weights:
            for i in range(n):
                total += weights[i]
        else:
            total = number(n)
        loss, spread = number(0), smoothing / number(k)
        for first in range(0, n, _ROWS):
            end = min(first + _ROWS, n)
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
                weight = weights[i] if task.weights else number(1)
                share = weight / total if total != 0 else number(0)
                top, log = largest[i - first], np.log(sum_)
                of_label = share * (number(1) - smoothing)
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

    return unit
