"""Jobs for NumPy, and the team of threads that does them.

`_native` holds the machine code; here is how a job is written down and who works. Nothing is loaded
before the first job.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

# What jobs are called, and how many words they and the arrays of an update have.
GEMM, SUM, GATHER, TAKE, ACTIVATE, SOFTMAX, SCALAR, UPDATE = range(1, 9)
WORDS, UPDATE_WORDS = 20, 10
# What brings to its place what is given for one of many steps: from where, how far it is to that of
# the next step, how many words of 32 bits there are, and the place.
PICK_WORDS = 4
# The rules of an update: gradient descent with momentum, or Adam with and without decay.
MOMENTUM, ADAM = range(2)
# The functions of an activation.
RELU, LOGISTIC = range(2)
# Samples that our own product x^T dy takes at a time: more lines of x, as far apart as its rows,
# find no place in the second cache. Numbers that so many rows of dy, which pass with every six rows
# of the result, may hold: with more a BLAS is faster. How wide a result may be for six of its rows
# to fit the first cache.
SAMPLES_AT_ONCE, LARGEST_RIGHT, FUSED_COLUMNS = 256, 1 << 17, 1024

__all__ = [
    "Job",
    "address",
    "can_work",
    "fused",
    "is_at_work",
    "outside",
    "runner",
    "table",
    "team",
    "usable_threads",
]


class Job(NamedTuple):
    """What to do: a kind of `_native`, whether it is worth sharing out, and its words.

    An array among the words stands for its address.
    """

    kind: int
    is_shared: bool
    words: Sequence[Any]


@functools.cache
def _native() -> Any:
    from mlp_xp.backends import _native

    return _native


@functools.cache
def can_work() -> bool:
    """Tell whether there is what compiles jobs, and threads that can wait; loads it."""
    if os.name != "posix":
        return False
    try:
        _Team(1).run(table([])[0])  # Compiles all.
    except ImportError:
        return False
    except Exception as error:  # We use what a version of numba may have in another way.
        warnings.warn(
            "What makes training on NumPy fast cannot be compiled by this version of numba "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}), so it is slower here. "
            "Try another one: pip install --upgrade numba.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def table(jobs: Sequence[Job]) -> tuple[np.ndarray, list[Any]]:
    """Write jobs down.

    Returns
    -------
    words : (jobs, words) int64
    arrays : list of (row, column, array)
        Where an address stands, and of what.
    """
    words = np.zeros((len(jobs), WORDS), np.int64)
    arrays = []
    for row, job in enumerate(jobs):
        words[row, 0], words[row, 1] = job.kind, job.is_shared
        for column, word in enumerate(job.words, start=2):
            if hasattr(word, "dtype"):
                arrays.append((row, column, word))
                word = address(word)
            words[row, column] = word
    return words, arrays


def fused(jobs: Sequence[Job]) -> list[Job]:
    """Leave out the products x^T dy that an update behind them can compute as it goes.

    Six rows of such a gradient at a time are computed and used: it is never written to memory. An
    update owns its gradients, so nobody can miss them, and between jobs of one table nothing else
    happens, so that the operands are still there.
    """
    products = {address(job.words[10]): job for job in jobs if _can_be_fused(job)}
    left_out = set()
    for job in jobs:
        if job.kind == UPDATE:
            for row in job.words[2]:
                product = products.get(row[3])
                if product is not None:
                    n, k, x, dy = (product.words[i] for i in (4, 5, 6, 8))
                    row[6:10] = address(x), address(dy), k, n
                    left_out.add(id(product))
    return [job for job in jobs if id(job) not in left_out]


def _can_be_fused(job: Job) -> bool:
    if job.kind != GEMM or not _native().routines()[2]:
        return False
    is_double, ta, _, m, n, k, x, ldx, dy = job.words[:9]
    moves = getattr(x, "find", None) or getattr(dy, "find", None)
    fits = n % 16 == 0 and 32 <= n <= FUSED_COLUMNS and k <= SAMPLES_AT_ONCE and ldx == m
    return bool(ta and fits and not is_double and not moves)


def outside(rows: np.ndarray, size: int) -> IndexError:
    """Give the error for positions of rows of which one is not there."""
    return IndexError(
        f"Rows are asked for by positions from {rows.min()} to {rows.max()}, and there are {size} "
        f"rows: give positions from {-size} to {size - 1}."
    )


def address(array: Any) -> int:
    """Give where an array, traced or not, lies."""
    return int(getattr(array, "value", array).ctypes.data)


class _Team:
    """Threads that share out each job; a team of one is the caller alone."""

    def __init__(self, parts: int) -> None:
        native = _native()
        self.parts = parts
        self._mail = np.zeros(native.MAIL + 8 * parts, np.int64)
        self._mail[native.PARTS] = parts
        self._totals = np.zeros(8 * parts)
        ours = self._mail, self._totals, native.routines()
        no_jobs, no_picks = np.zeros((0, WORDS), np.int64), np.zeros((0, PICK_WORDS), np.int64)
        self._serve = functools.partial(native.work, *ours, no_jobs, no_picks, 0, 0)

        def run(
            words: np.ndarray, picks: np.ndarray = no_picks, start: int = 0, stop: int = 1
        ) -> None:
            """Do the jobs of a table, once for each step."""
            done = native.work(*ours, words, picks, start, stop, 0)
            if done < len(words):
                size, n, place = (int(words[done, i]) for i in (3, 4, 7))
                raise outside(np.asarray((ctypes.c_int32 * n).from_address(place)), size)

        self.run = run

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Have the other threads wait for jobs, once."""
        native = _native()
        threads: list[threading.Thread] = []
        try:
            for part in range(1, self.parts):
                thread = threading.Thread(
                    target=self._serve, args=(part,), name=f"mlp_xp-{part}", daemon=True
                )
                thread.start()
                threads.append(thread)
            yield
        finally:
            self._mail[native.TICKET] = native.QUIT
            for thread in threads:
                thread.join()


class _Mine(threading.local):
    """The team of this thread, and what it does jobs with where it has none."""

    team: _Team | None = None
    solo: _Team | None = None


_mine = _Mine()
_lock = threading.Lock()
_limits: list[Any] = []


def _after_fork() -> None:
    """Work alone in a forked process, which has none of our threads.

    `_limits` stay: who forked is still at work beside us, and a BLAS is better left alone here.
    """
    global _lock
    _mine.team = None
    _lock = threading.Lock()  # Another thread, which is not here, may have held it.


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def runner() -> Callable[..., None]:
    """Give what does the jobs of a table: the team of this thread, or the caller alone."""
    if _mine.team is not None:
        return _mine.team.run
    if not can_work():
        return _nobody
    if _mine.solo is None:
        _mine.solo = _Team(1)
    return _mine.solo.run


def _nobody(*_: Any) -> None:
    """Stand in where nothing compiles jobs, and so none are written down."""
    raise RuntimeError("A job was written down, and numba, which compiles jobs, does not load.")


def is_at_work() -> bool:
    """Tell whether this thread is inside of `team`."""
    return _mine.team is not None


@functools.cache
def _blas() -> ThreadpoolController:
    """Find the BLAS libraries, which takes milliseconds."""
    _native().routines()  # Loads the one that they are of.
    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def team(parts: int) -> Iterator[None]:
    """Give this thread a team; the BLAS has one thread meanwhile, or they would fight.

    Threads of a BLAS look for work for a while before they sleep, and take the processors from
    ours. Its limit is the process's: of several users the last one out gives the threads back, for
    each restoring what it saw would restore another one's limit.
    """
    with _lock:
        _limits.append(_limits[-1] if _limits else _blas().limit(limits=1))
        others = len(_limits) - 1
    outer = _mine.team
    # Others who train at the same time have threads of their own.
    _mine.team = _Team(max(1, parts // (others + 1)))
    try:
        with _mine.team.working():
            yield
    finally:
        _mine.team = outer
        with _lock:
            limits = _limits.pop()
            if not _limits:
                limits.restore_original_limits()


def usable_threads() -> int:
    """Give the threads that a BLAS would take, by its variables, else all usable processors.

    Those are what affinity, a container's share and ``LOKY_MAX_CPU_COUNT`` leave.
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return max(int(os.environ[name]), 1)
    from joblib import cpu_count

    return int(cpu_count())
