"""The threads that run machine code; while they run, the number of BLAS threads is limited.

`machine_code` compiles and loads each function when it is first called.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from threadpoolctl import ThreadpoolController

from mlp_xp._utils.optional import pip_command
from mlp_xp._utils.signals.forks import fork_safe_lock
from mlp_xp._utils.threads import current_worker
from mlp_xp.backends._numpy.runtime.memory import empty
from mlp_xp.backends._numpy.runtime.subnormals import in_this_mode

if TYPE_CHECKING:  # Avoid this import in short fits.
    from mlp_xp.backends._numpy.runtime.tuning import Tile

_has_failed = False


def can_compile() -> bool:
    """Whether machine code can be compiled on this machine; this does not import numba."""
    return not _has_failed and _is_installed()


@functools.cache
def _is_installed() -> bool:
    if os.name != "posix" or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return False
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("numba", "llvmlite"))
    except ValueError:  # Raised if an import hook blocks the package.
        return False


@functools.cache
def _machine_code() -> Any:
    try:
        from mlp_xp.backends._numpy import machine_code  # Imports llvmlite.
    except (ImportError, OSError) as error:  # OSError if LLVM cannot be loaded.
        _fail(error)
    return machine_code


def _fail(error: Exception) -> NoReturn:
    """Warn, make `can_compile` return False from then on, and raise MachineCodeError."""
    global _has_failed
    if not _has_failed:
        _has_failed = True
        warnings.warn(
            "The machine code for NumPy cannot be compiled by this version of numba "
            f"({error}), so training is slower. Try another one: {pip_command('--upgrade numba')}.",
            RuntimeWarning,
            stacklevel=3,
        )
    raise machine_code_error()(str(error)) from error


def find_tile() -> Tile | None:
    """Return this processor's tile for matrix products, or None; imports llvmlite."""
    found: Tile | None = _machine_code().find_tile()
    return found


def bfloat16_packing() -> int:
    """Return this processor's bfloat16 packing, or 0 if there is none; imports llvmlite."""
    try:
        return int(_machine_code().bfloat16_packing())
    except machine_code_error():  # A warning has given the reason.
        return 0


def is_zen() -> bool:
    """Whether this is an AMD Zen processor; imports llvmlite."""
    found: bool = _machine_code().is_zen()
    return found


def link(tables: Iterable[np.ndarray]) -> None:
    """Write the addresses of compiled functions into tables of calls; compile missing functions."""
    rows = [row for records in tables for row in records]
    if not rows:
        return
    from mlp_xp.backends._numpy.runtime.tasks import (
        MachineCodeError,
        Product,
        Unit,
        number_of,
        read,
    )

    tasks = list(map(read, rows))
    units = [Unit.for_task(task) for task in tasks]
    try:
        codes = _machine_code().addresses([Unit(0), *units])
    except (MachineCodeError, ImportError, OSError) as error:
        _fail(error)
    for task, unit in zip(tasks, units, strict=True):
        task["code"] = codes[unit]
        if task["kind"] == number_of(Product):
            task["blas"] = _machine_code().blas_address(bool(task["is_double"]))


def machine_code_error() -> type[RuntimeError]:
    """Return the exception class for code that cannot be compiled."""
    from mlp_xp.backends._numpy.runtime.tasks import MachineCodeError

    return MachineCodeError


def rows_error(positions: np.ndarray, size: int) -> IndexError:
    """Return the error for row positions that are out of range."""
    return IndexError(
        f"Row positions must be from {-size} to {size - 1}, got {positions.min()} to "
        f"{positions.max()}."
    )


class ThreadPool:
    """A pool of threads, including the calling thread, that divide each call among them."""

    def __init__(self, n_threads: int) -> None:
        from mlp_xp.backends._numpy.runtime.tasks import address
        from mlp_xp.backends._numpy.runtime.tuning import (
            CONTROL,
            CONTROL_OF_THREAD,
            N_THREADS,
            SCRATCH,
        )

        self.n_threads = n_threads
        self._threads: list[threading.Thread] = []
        self._control = empty((CONTROL + CONTROL_OF_THREAD * n_threads,), np.int64)
        self._control[:] = 0
        self._control[N_THREADS] = n_threads
        self._scratch = empty((n_threads * SCRATCH,), np.uint8)
        self._memory = tuple(map(address, (self._control, self._scratch)))
        self._run_tasks: Callable[..., int] | None = None

    def run(self, ranges: np.ndarray, is_repeated: bool = True) -> None:
        """Run step ranges, (ranges, 6) int64, whose tables must be linked."""
        from mlp_xp.backends._numpy.runtime.tasks import WORDS, address, read
        from mlp_xp.backends._numpy.runtime.tuning import LAST_TABLE

        run_tasks = self._run_tasks or self._start()
        if not is_repeated:  # Discard times measured for another table at this address.
            self._control[LAST_TABLE] = 0
        failed = run_tasks(*self._memory, address(ranges), len(ranges), 0)
        if failed:
            task = read(np.asarray((ctypes.c_int64 * WORDS).from_address(failed)))
            positions = (ctypes.c_int32 * int(task["n_rows"])).from_address(int(task["positions"]))
            raise rows_error(np.asarray(positions), int(task["n_source"]))

    def _start(self) -> Callable[..., int]:
        """Start the pool's other threads, which wait for calls; the machine code must be linked."""
        self._run_tasks = run_tasks = _machine_code().run_tasks()
        for thread_number in range(1, self.n_threads):
            thread = threading.Thread(
                target=in_this_mode(run_tasks),
                args=(*self._memory, 0, 0, thread_number),
                name=f"mlp_xp-{thread_number}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)
        return run_tasks

    def end(self) -> None:
        """Stop the pool's other threads."""
        if self._run_tasks is not None:
            self._run_tasks(*self._memory, 0, -1, 0)
        for thread in self._threads:
            thread.join()


class _OfThisThread(threading.local):
    pool: ThreadPool | None = None


_of_this_thread = _OfThisThread()
_lock = fork_safe_lock()
_limits: list[Any] = []


def _after_fork() -> None:
    """Reset the pool, whose threads do not exist in the forked process.

    A limit on BLAS threads, which `_limits` stores, remains in effect.
    """
    _of_this_thread.pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def runner() -> Callable[..., None]:
    """Return the function that runs step ranges in this thread's pool."""
    pool = _of_this_thread.pool
    return _run_nothing if pool is None else pool.run


def _run_nothing(*_: Any) -> None:
    """Raise an error, because machine code was called without a pool."""
    raise RuntimeError("Machine code was called outside of `thread_pool`.")


def has_pool() -> bool:
    """Whether this thread is within `thread_pool`, and machine code can be compiled."""
    return _of_this_thread.pool is not None and not _has_failed


@functools.cache
def _blas() -> ThreadpoolController:
    """Return the controller of the BLAS libraries; finding the libraries takes milliseconds."""
    import scipy.linalg.cython_blas  # noqa: F401 - loads the BLAS that computes our products.

    return ThreadpoolController().select(user_api="blas")


def openblas_threads() -> int:
    """Return the number of threads that OpenBLAS uses now, or 1 without OpenBLAS.

    NumPy and SciPy may have separate copies of OpenBLAS, and a limit may apply to only one of them.
    """
    found = _blas().lib_controllers
    return min((x.num_threads for x in found if x.internal_api == "openblas"), default=1)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[int]:
    """Limit the BLAS to one thread; yield the number of outer contexts that are still open.

    The limit applies to the whole process. The last context to close restores the number of
    threads.
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
def thread_pool(n_threads: int) -> Iterator[None]:
    """Open a thread pool for this thread, and limit the BLAS to one thread.

    Without the limit, the BLAS's threads would compete with the pool, since they spin before they
    sleep.
    """
    with one_blas_thread() as others:
        # Concurrent fits divide the threads among themselves.
        own = n_threads if current_worker() else max(1, n_threads // (others + 1))
        outer, pool = _of_this_thread.pool, ThreadPool(own)
        _of_this_thread.pool = pool
        try:
            yield
        finally:
            pool.end()  # Stop `pool` directly, since `_of_this_thread.pool` is None after a fork.
            _of_this_thread.pool = outer
