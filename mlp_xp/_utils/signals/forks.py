"""Delay forks until no other thread is computing.

OpenBLAS stops its threads before a fork, even if another Python thread is waiting for them. The
parent process may then hang. The child process may hang, too: it inherits the locks of that thread,
but not the thread that would release them.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from threading import get_ident
from types import FrameType
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
_POLL = 0.001  # Seconds between two checks.

# The maximum wait in seconds, in case the computing thread waits for the forking thread.
_LONGEST = 30.0
_computing: set[int] = set()  # The ids of computing threads.
_forking: set[int] = set()
_interrupted: set[int] = set()


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
    """Return a lock that is free in a forked process, even if another thread held it."""
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lock._at_fork_reinit)  # type: ignore[attr-defined]
    return lock


def _before_fork() -> None:
    """Wait until the computing threads have finished; new computations start after the fork."""
    _forking.add(get_ident())
    end = time.monotonic() + _LONGEST
    while True:
        try:
            while _computing - {get_ident()} and time.monotonic() < end:
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
    """Send SIGINT after `os.fork` has returned: an exception in a fork hook is only printed."""
    while caller.f_lasti == position:
        time.sleep(_POLL)
    signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGINT)


def _after_fork_in_child() -> None:
    """Remove the threads that do not exist in the forked process."""
    _computing.intersection_update({get_ident()})
    _forking.clear()
    _interrupted.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
