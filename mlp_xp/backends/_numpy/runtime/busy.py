"""BLAS matrix products that remain fast while another program uses a processor.

In each matrix product, the BLAS's threads wait for each other. If another program runs on a
thread's processor, the thread may be late by a scheduler time slice. In that time, a single thread
could compute the whole product. If threads are late, a single thread therefore computes the same
pieces that the BLAS would assign to its threads. A test with random data first checks that the
results are bitwise identical.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from mlp_xp._utils.signals.forks import fork_safe_lock
from mlp_xp.backends._numpy.runtime.thread_pool import one_blas_thread, openblas_threads

# All threads compute `_WINDOW` products before their time is compared with the time of one thread.
# If one thread is faster, it computes `_SHORTEST` products before all threads are tried again. Each
# failed trial doubles this number, up to `_LONGEST`.
_WINDOW, _SHORTEST, _LONGEST = 16, 64, 1024
# The number of unmeasured products at the start of a window, while threads wake up.
_WAKING = 2
# The weight of the latest time in the moving average for one thread.
_LAST = 0.1

# A limit on BLAS threads applies to the whole process. It would change the rounding of products in
# other threads, so these products must wait. This costs little, since the BLAS computes one product
# at a time anyway.
_lock = fork_safe_lock()


class TimedProduct:
    """A matrix product for fixed shapes and memory orders, computed by one thread or by all.

    Results do not depend on the number of threads, so measured times may decide.
    """

    def __init__(self, *layout: Any) -> None:
        self.layout = layout
        self.shortest = math.inf  # The shortest time with all threads, in seconds.
        self.alone: float | None = None  # The average time with one thread, in seconds.
        self.n_alone = 0  # The number of products left for one thread.
        self.stretch = _SHORTEST // 2
        # The number of products in the current window, and the excess time in seconds.
        self.n_products, self.excess = 0, 0.0

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
    """Return where to split rows so that one thread's result is bitwise identical, or ()."""
    rng = np.random.default_rng(0)
    a, b = (
        rng.random(shape, dtype) if is_c else rng.random(shape[::-1], dtype).T
        for shape, is_c in zip(layout[:2], layout[2:], strict=True)
    )
    wanted, found = a @ b, np.empty((a.shape[0], b.shape[1]), dtype)
    if openblas_threads() != n_threads:  # Another thread changed the BLAS limit.
        return ()
    for cuts in _possible_cuts(a.shape[0], n_threads):
        _multiply_pieces(a, b, found, cuts)
        if np.array_equal(found, wanted):
            return cuts
    return ()


def _possible_cuts(n_rows: int, n_threads: int) -> Iterator[tuple[int, ...]]:
    """Yield the ways in which OpenBLAS may split rows: not at all, or into two parts per thread."""
    yield 0, n_rows
    for multiple in (1, 4, 8):
        cuts = [0]
        for thread in range(n_threads):
            end = cuts[-1] + math.ceil((n_rows - cuts[-1]) / (n_threads - thread))
            half = math.ceil((end - cuts[-1]) / (2 * multiple)) * multiple
            cuts += sorted({min(cuts[-1] + half, end), end} - {cuts[-1]})
        yield tuple(cuts)
