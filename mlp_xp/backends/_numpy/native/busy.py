"""BLAS products while another program keeps a processor busy.

The BLAS's threads wait for each other in each product. A thread that shares its processor with
another program arrives late by a scheduler time slice, which is longer than one thread takes for
the whole product. Then one thread computes the product, in the same pieces into which the BLAS
divides it, if this gives the same bits: each layout is tested first with random numbers.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from mlp_xp.backends._numpy.native.thread_pool import one_blas_thread, openblas_threads

# The number of products by all threads before their time is compared with one thread's, and the
# number by one thread before all try again, doubled after each failed try.
_WINDOW, _SHORTEST, _LONGEST = 16, 64, 1024
# The first products of a window, for which threads may have to wake up.
_WAKING = 2
# The weight of the last product in the mean seconds of one thread.
_LAST = 0.1

# The limit to one thread applies to the process, so other threads must wait to get the same bits.
# The BLAS's threads compute one product at a time anyway. Forks wait for the end of a step.
_lock = threading.Lock()


class TimedProduct:
    """Products of one layout; decides whether one thread or all threads compute the next ones.

    Both give the same bits, so the choice may depend on a clock.
    """

    def __init__(self, *layout: Any) -> None:
        self.layout = layout
        self.shortest = math.inf  # Seconds of all threads.
        self.alone: float | None = None  # Mean seconds of one thread.
        self.n_alone = 0  # Products still to be computed by one thread.
        self.stretch = _SHORTEST // 2
        self.n_products, self.excess = 0, 0.0  # In this window; seconds longer than one thread.

    def __call__(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """Compute ``numpy.matmul(a, b, out)``."""
        with _lock:
            n_threads = openblas_threads()
            if n_threads > 1:
                self._multiply(n_threads, a, b, out)
                return
        np.matmul(a, b, out)

    def _multiply(self, n_threads: int, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        if self.n_alone:
            cuts = _find_cuts(n_threads, *self.layout)
            if not cuts:
                np.matmul(a, b, out)
                return
            self.n_alone -= 1
            start = time.perf_counter()
            _multiply_pieces(a, b, out, cuts)
            seconds = time.perf_counter() - start
            self.alone = seconds if self.alone is None else self.alone
            self.alone += _LAST * (seconds - self.alone)
            return
        start = time.perf_counter()
        np.matmul(a, b, out)
        seconds = time.perf_counter() - start
        self.shortest = min(seconds, self.shortest)
        alone = n_threads * self.shortest if self.alone is None else self.alone
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


timed_product = functools.lru_cache(maxsize=256)(TimedProduct)


def _multiply_pieces(a: np.ndarray, b: np.ndarray, out: np.ndarray, cuts: tuple[int, ...]) -> None:
    with one_blas_thread():
        for start, stop in pairwise(cuts):
            np.matmul(a[start:stop], b, out[start:stop])


@functools.lru_cache(maxsize=256)
def _find_cuts(n_threads: int, dtype: Any, *layout: Any) -> tuple[int, ...]:
    """Return the rows at which one thread must split to get the same bits; () if no split works."""
    rng = np.random.default_rng(0)
    a, b = (
        rng.random(shape, dtype) if is_c else rng.random(shape[::-1], dtype).T
        for shape, is_c in zip(layout[:2], layout[2:], strict=True)
    )
    wanted, found = a @ b, np.empty((a.shape[0], b.shape[1]), dtype)
    if openblas_threads() != n_threads:  # Another thread has begun to fit.
        return ()
    for cuts in _possible_cuts(a.shape[0], n_threads):
        _multiply_pieces(a, b, found, cuts)
        if np.array_equal(found, wanted):
            return cuts
    return ()


def _possible_cuts(n_rows: int, n_threads: int) -> Iterator[tuple[int, ...]]:
    """Yield possible splits by OpenBLAS: none, or each thread's part in two."""
    yield 0, n_rows
    for multiple in (1, 4, 8):
        cuts = [0]
        for thread in range(n_threads):
            end = cuts[-1] + math.ceil((n_rows - cuts[-1]) / (n_threads - thread))
            half = math.ceil((end - cuts[-1]) / (2 * multiple)) * multiple
            cuts += sorted({min(cuts[-1] + half, end), end} - {cuts[-1]})
        yield tuple(cuts)
