"""Jobs for NumPy, and the team of threads that does them.

`machine_code` compiles and loads; here is how a job is written down and who works. Nothing is
loaded before the first job.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

# What jobs are called, and how many words they and the arrays of an update have.
GEMM, SUM, GATHER, TAKE, ACTIVATE, SOFTMAX, SCALAR, UPDATE = range(1, 9)
WORDS, UPDATE_WORDS = 20, 10
CODE = WORDS - 1  # The word with the address of a job's machine code.
ROUTINE = 15  # That of a product with the address of the BLAS's.
WORK = 0  # The unit that does a table of jobs.
# The mailbox of a team, in words: a line of the cache (8 words) for what one side writes.
TICKET, JOB, PARTS, DONE = 0, 8, 9, 16
MAIL = 16  # Words before those of each thread, which are 8.
QUIT = -1  # The ticket of no job: those have 1, 2, ...
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
# Bytes that an update computes such rows in, for each thread.
SCRATCH = 6 * FUSED_COLUMNS * 4

__all__ = [
    "Job",
    "address",
    "can_work",
    "fused",
    "is_at_work",
    "one_blas_thread",
    "outside",
    "runner",
    "table",
    "team",
    "usable_threads",
]


class Job(NamedTuple):
    """What to do: a kind of `machine_code`, whether it is worth sharing out, and its words.

    An array among the words stands for its address.
    """

    kind: int
    is_shared: bool
    words: Sequence[Any]


class Unit(NamedTuple):
    """What is compiled by itself: a kind of job, its dtype, and which of several variants."""

    kind: int
    is_double: int = 0
    variant: int = 0

    @property
    def name(self) -> str:
        return "mlp_xp_{}_{}_{}".format(*self)


class MachineCodeError(RuntimeError):
    """Machine code that cannot be compiled here."""


@functools.cache
def _machine_code() -> Any:
    from mlp_xp.backends._numpy import machine_code

    return machine_code


_has_failed = False


def can_work() -> bool:
    """Whether there is what compiles jobs, and threads that can wait; loads nothing."""
    return not _has_failed and _is_installed()


@functools.cache
def _is_installed() -> bool:
    if os.name != "posix" or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return False
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("numba", "llvmlite"))
    except ValueError:  # Kept from being imported.
        return False


def link(tables: Iterable[np.ndarray]) -> None:
    """Write into tables of jobs where their machine code is; compile what is not there yet.

    Raises
    ------
    MachineCodeError
        If that cannot be compiled. A warning says why, and `can_work` is False from then on.
    """
    global _has_failed
    rows = [(row, _unit(row)) for words in tables for row in words]
    if not rows:
        return
    try:
        codes = _machine_code().addresses([Unit(WORK), *(unit for _, unit in rows)])
    except (MachineCodeError, ImportError, OSError) as error:  # OSError: LLVM cannot be loaded.
        _has_failed = True
        warnings.warn(
            "What makes training on NumPy fast cannot be compiled by this version of numba "
            f"({error}), so it is slower here. Try another one: pip install --upgrade numba.",
            RuntimeWarning,
            stacklevel=2,
        )
        raise MachineCodeError(str(error)) from error
    for row, unit in rows:
        row[CODE] = codes[unit]
        if row[0] == GEMM:
            row[ROUTINE] = _machine_code().blas_address(bool(row[2]))


# Which word of a job says how it is compiled: whether rows are of bytes, the function, the rule.
_VARIANT = {GATHER: 11, ACTIVATE: 7, UPDATE: 5}


def _unit(row: np.ndarray) -> Unit:
    kind = int(row[0])
    return Unit(kind, int(row[2]), int(row[_VARIANT[kind]]) if kind in _VARIANT else 0)


def all_units() -> list[Unit]:
    """Return every unit that there is."""
    plain = [Unit(kind, d) for kind in (GEMM, SUM, SOFTMAX, SCALAR) for d in (0, 1)]
    others = [Unit(kind, d, variant) for kind in _VARIANT for d in (0, 1) for variant in (0, 1)]
    return [Unit(WORK), Unit(TAKE), *plain, *others]


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
    if job.kind != GEMM or not _machine_code().has_tile():
        return False
    is_double, ta, _, m, n, k, x, ldx, dy = job.words[:9]
    moves = getattr(x, "find", None) or getattr(dy, "find", None)
    fits = n % 16 == 0 and 32 <= n <= FUSED_COLUMNS and k <= SAMPLES_AT_ONCE and ldx == m
    return bool(ta and fits and not is_double and not moves)


def outside(rows: np.ndarray, size: int) -> IndexError:
    """Return the error for positions of rows that do not exist."""
    return IndexError(
        f"Rows are asked for by positions from {rows.min()} to {rows.max()}, and there are {size} "
        f"rows: give positions from {-size} to {size - 1}."
    )


def address(array: Any) -> int:
    """Return where an array, traced or not, lies."""
    place: int = getattr(array, "value", array).__array_interface__["data"][0]
    return place


class _Team:
    """Threads that share out each job; a team of one is the caller alone."""

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self._threads: list[threading.Thread] = []
        self._mail = np.zeros(MAIL + 8 * parts, np.int64)
        self._mail[PARTS] = parts
        self._totals = np.zeros(8 * parts)
        self._scratch = np.empty(parts * SCRATCH, np.uint8)
        self._places = tuple(map(address, (self._mail, self._totals, self._scratch)))
        self._work: Callable[..., int] | None = None

    def run(
        self, words: np.ndarray, picks: np.ndarray | None = None, start: int = 0, stop: int = 1
    ) -> None:
        """Do the jobs of a linked table, once for each step."""
        work = self._work or self._begin()
        given = (0, 0) if picks is None else (address(picks), len(picks))
        done = work(*self._places, address(words), len(words), *given, start, stop, 0)
        if done < len(words):
            size, n, place = (int(words[done, i]) for i in (3, 4, 7))
            raise outside(np.asarray((ctypes.c_int32 * n).from_address(place)), size)

    def _begin(self) -> Callable[..., int]:
        """Have the other threads wait for jobs; there is machine code by now."""
        work = _machine_code().work()
        for part in range(1, self.parts):
            thread = threading.Thread(
                target=work,
                args=(*self._places, 0, 0, 0, 0, 0, 0, part),
                name=f"mlp_xp-{part}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)
        self._work = work
        return work

    def end(self) -> None:
        """End the other threads."""
        self._mail[TICKET] = QUIT
        for thread in self._threads:
            thread.join()


class _Mine(threading.local):
    """The team of this thread."""

    team: _Team | None = None


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
    """Return what does the jobs of a table in this thread."""
    return _nobody if _mine.team is None else _mine.team.run


def _nobody(*_: Any) -> None:
    """Stand in where there is no team, and so no jobs are written down."""
    raise RuntimeError("A job was written down outside of a team.")


def is_at_work() -> bool:
    """Whether this thread is inside of `team`, and its jobs can be compiled."""
    return _mine.team is not None and not _has_failed


@functools.cache
def _blas() -> ThreadpoolController:
    """Find the BLAS libraries, which takes milliseconds."""
    import scipy.linalg.cython_blas  # noqa: F401 - loads the one that products are of.

    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def one_blas_thread() -> Iterator[int]:
    """Hold the BLAS to one thread, and return how many others already do.

    The limit is the process's: of several users the last one out gives the threads back, for each
    restoring what it saw would restore another one's limit.
    """
    with _lock:
        _limits.append(_limits[-1] if _limits else _blas().limit(limits=1))
        others = len(_limits) - 1
    try:
        yield others
    finally:
        with _lock:
            limits = _limits.pop()
            if not _limits:
                limits.restore_original_limits()


@contextlib.contextmanager
def team(parts: int) -> Iterator[None]:
    """Start a team for this thread, and hold the BLAS to one thread meanwhile.

    Threads of a BLAS look for work for a while before they sleep, and take the processors from
    ours.
    """
    with one_blas_thread() as others:
        # Others who train at the same time have threads of their own.
        outer, mine = _mine.team, _Team(max(1, parts // (others + 1)))
        _mine.team = mine
        try:
            yield
        finally:
            mine.end()  # In a forked process it is no longer that of `_mine`.
            _mine.team = outer


def usable_threads() -> int:
    """Give the threads that a BLAS would take, by its variables, else all usable processors.

    Those are what affinity, a container's share and ``LOKY_MAX_CPU_COUNT`` leave.
    """
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return max(int(os.environ[name]), 1)
    from joblib import cpu_count

    return int(cpu_count())
