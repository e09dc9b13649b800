"""Delay forks until no other thread is computing, and release the locks that a child inherits.

OpenBLAS stops its threads before a fork, even if another Python thread is waiting for them. The
parent process may then hang. The child process may hang, too: it inherits the locks of other
threads, but not the threads that would release them. In a child, Python frees the locks of
`logging` and `concurrent.futures`, but no other locks.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801
        """``functools.cached_property`` without its lock, as in Python 3.12.

        On Python 3.11, all objects of a class share one lock, which a child may inherit locked.
        """

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            value = self.func(instance)
            vars(instance)[self.attrname] = value
            return value


F = TypeVar("F", bound=Callable[..., Any])
_POLL = 0.001  # Seconds between two checks.

# The maximum wait in seconds, in case the computing thread waits for the forking thread.
_LONGEST = 30.0
_computing: set[int] = set()  # The ids of computing threads.
_forking: set[int] = set()
_interrupted: set[int] = set()
_locks: weakref.WeakSet[Any] = weakref.WeakSet()
# Modules with locks that Python does not free in a child: the locks for each module being imported,
# for names of temporary files, and, on Python 3.11, for each cached property.
_LOCKING = {"importlib._bootstrap", "tempfile", "functools"}


def between_forks(function: F) -> F:
    """Wrap a function so that other threads cannot fork this process while it runs."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        thread = get_ident()
        if thread in _computing:
            return function(*args, **options)
        _computing.add(thread)
        try:
            while _forking:
                _computing.discard(thread)
                time.sleep(_POLL)
                _computing.add(thread)
            return function(*args, **options)
        finally:
            _computing.discard(thread)

    return cast(F, call)


def fork_safe_lock() -> threading.Lock:
    """Return a lock that is released in a forked process, even if another thread held it."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def _is_locking(frame: FrameType | None) -> bool:
    """Whether a call from this package, at any depth, may hold a lock from `_LOCKING`."""
    is_locking = False
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if module.partition(".")[0] == "mlp_xp":
            return is_locking
        is_locking = is_locking or module in _LOCKING
        frame = frame.f_back
    return False


def _is_other_busy() -> bool:
    """Whether another thread is computing or may hold a lock."""
    me = get_ident()
    if _computing - {me}:
        return True
    return any(
        _is_locking(frame) for thread, frame in sys._current_frames().items() if thread != me
    )


def _before_fork() -> None:
    """Wait until the computing threads have finished; new computations start after the fork."""
    _forking.add(get_ident())
    end = time.monotonic() + _LONGEST
    while True:
        try:
            while _is_other_busy() and time.monotonic() < end:
                time.sleep(_POLL)
            return
        except KeyboardInterrupt:  # Python would print the exception and fork anyway.
            _interrupted.add(get_ident())


def _after_fork() -> None:
    _forking.discard(get_ident())
    if get_ident() in _interrupted:
        _interrupted.discard(get_ident())
        caller = sys._getframe(1)
        threading.Thread(target=_interrupt, args=(caller, caller.f_lasti), daemon=True).start()


def _interrupt(caller: FrameType, position: int) -> None:
    """Send SIGINT after `os.fork` has returned: a fork hook's exceptions are only printed."""
    while caller.f_lasti == position:
        time.sleep(_POLL)
    signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGINT)


def _after_fork_in_child() -> None:
    """Remove the threads that do not exist in the forked process, and free their locks."""
    _computing.intersection_update({get_ident()})
    _forking.clear()
    _interrupted.clear()
    numpy_generator = cast(Any, np.random).get_bit_generator()  # Used if `random_state` is None.
    for lock in (*_locks, numpy_generator.lock):
        lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
