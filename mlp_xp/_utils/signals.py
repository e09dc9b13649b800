"""What Ctrl-C does while something must not be cut in half."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["interruptible", "interrupts", "postponed"]

_at_once = False


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C into a flag, so that a step is never cut in half.

    A step writes to the state it was given: an exception in the middle would leave it broken. A
    second Ctrl-C raises `KeyboardInterrupt` as usual. Outside the main thread nothing changes.

    Yields
    ------
    callable
        Tells whether Ctrl-C was pressed.
    """
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed or _at_once:
            raise KeyboardInterrupt
        pressed = True

    is_main = threading.current_thread() is threading.main_thread()
    # A handler that somebody else installed is theirs to keep, and so is an ignored signal.
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Let Ctrl-C wait: where compiled modules are loaded, an exception ends the whole process."""
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not callable(handler):
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *press: waiting.append(press))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for press in waiting:
            handler(*press)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt` at once, also inside of `interrupts`.

    For a long wait in which nothing can be cut in half. Outside the main thread nothing changes:
    the main thread may be in a step.
    """
    global _at_once
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _at_once = _at_once, True
    try:
        yield
    finally:
        _at_once = before
