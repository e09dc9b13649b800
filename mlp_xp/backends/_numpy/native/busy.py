"""Products of the BLAS where another program keeps a processor busy.

The BLAS's threads wait for each other in each product. One that shares its processor with another
program arrives late by a slice of the scheduler, which is longer than one thread takes for all.
Then one thread computes the product, in the pieces in which the BLAS gives it to its threads, if
that gives the same bits: each layout is tried before, with random numbers.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from mlp_xp.backends._numpy.native.thread_pool import blas_threads, one_blas_thread

# Products by all threads after which their time is compared with one thread's, and products by one
# thread before all try again; twice as many after each failed try.
_WINDOW, _SHORTEST, _LONGEST = 16, 64, 1024
# The first products of a window, whose threads may have to wake.
_WAKING = 4
# The weight of the last product in the mean seconds of one thread.
_LAST = 0.1


class _Watch:
    """Times products, and decides whether one thread computes the next ones, or all threads.

    Both give the same bits, so that a clock may decide.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()  # Threads of a BLAS serve one product at a time anyway.
        self.shortest: dict[Any, float] = {}  # Seconds of all threads, by layout.
        self.alone: dict[Any, float] = {}  # Mean seconds of one thread.
        self.n_alone = 0  # Products yet to be computed by one thread.
        self.stretch = _SHORTEST // 2
        self.n_products, self.excess = 0, 0.0  # Of this window; seconds beyond one thread's.

    def multiply(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        layout = a.dtype, a.shape, b.shape, a.flags.c_contiguous, b.flags.c_contiguous
        start = time.perf_counter()
        if self.n_alone:
            self.n_alone -= 1
            if cuts := _find_cuts(blas_threads(), *layout):
                start = time.perf_counter()
                _multiply_pieces(a, b, out, cuts)
                seconds = time.perf_counter() - start
                mean = self.alone.get(layout, seconds)
                self.alone[layout] = mean + _LAST * (seconds - mean)
                return
        np.matmul(a, b, out)
        seconds = time.perf_counter() - start
        self.shortest[layout] = min(seconds, self.shortest.get(layout, seconds))
        alone = self.alone.get(layout, 2 * self.shortest[layout])
        self.n_products += 1
        if self.n_products <= _WAKING:
            return
        self.excess += seconds - alone
        if self.n_products < _WINDOW and self.excess < _WINDOW * alone:
            return
        is_late = self.excess > 0
        self.stretch = min(2 * self.stretch, _LONGEST) if is_late else _SHORTEST // 2
        self.n_alone = self.stretch if is_late else 0
        self.n_products, self.excess = 0, 0.0


_watch = _Watch()


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Compute ``numpy.matmul(a, b, out)`` with the same bits, and on a busy machine sooner."""
    with _watch.lock:
        _watch.multiply(a, b, out)


def _multiply_pieces(a: np.ndarray, b: np.ndarray, out: np.ndarray, cuts: tuple[int, ...]) -> None:
    with one_blas_thread():
        for start, stop in pairwise(cuts):
            np.matmul(a[start:stop], b, out[start:stop])


@functools.cache
def _find_cuts(n_threads: int, dtype: Any, *layout: Any) -> tuple[int, ...]:
    """Return between which rows one thread must pause to give the bits of all; () if nowhere."""
    rng = np.random.default_rng(0)
    shapes, are_rows = layout[:2], layout[2:]
    a, b = (
        rng.standard_normal(shape if is_rows else shape[::-1]).astype(dtype)
        for shape, is_rows in zip(shapes, are_rows, strict=True)
    )
    a, b = (x if is_rows else x.T for x, is_rows in zip((a, b), are_rows, strict=True))
    wanted, found = a @ b, np.empty((a.shape[0], b.shape[1]), dtype)
    for cuts in _possible_cuts(a.shape[0], n_threads) if n_threads > 1 else ():
        _multiply_pieces(a, b, found, cuts)
        if np.array_equal(found, wanted):
            return cuts
    return ()


def _possible_cuts(n_rows: int, n_threads: int) -> Iterator[tuple[int, ...]]:
    """Yield where OpenBLAS may cut the rows: nowhere, or each thread's in two."""
    yield 0, n_rows
    for multiple in (1, 4, 8):
        cuts = [0]
        for thread in range(n_threads):
            end = cuts[-1] + math.ceil((n_rows - cuts[-1]) / (n_threads - thread))
            half = math.ceil((end - cuts[-1]) / (2 * multiple)) * multiple
            cuts += sorted({min(cuts[-1] + half, end), end} - {cuts[-1]})
        yield tuple(cuts)


def _after_fork() -> None:
    global _watch
    _watch = _Watch()  # Another thread, which is not here, may have held its lock.


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
