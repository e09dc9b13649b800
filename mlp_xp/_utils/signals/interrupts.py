"""Handle Ctrl-C so that it never interrupts a training step or an import."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from mlp_xp._utils.threads import current_worker

_raises_at_once = False


class _Presses:
    """A Ctrl-C handler that first sets a flag, then raises `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.is_pressed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_pressed or _raises_at_once:
            raise KeyboardInterrupt
        self.is_pressed = True


@contextlib.contextmanager
def _handled(
    number: signal.Signals, handle: Callable[[int, FrameType | None], None], *, instead_of: Any
) -> Iterator[None]:
    """Replace a signal's default handler; only the main thread may do this.

    Do nothing if the signal is ignored or the user has installed a handler.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(number) is not instead_of:
        yield
        return
    signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, instead_of)


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Record Ctrl-C as a flag instead of raising an exception; yield a function that returns it.

    A step modifies the training state in place, so an exception in the middle would corrupt it. A
    second Ctrl-C raises `KeyboardInterrupt` as usual. Nested contexts share one flag. Outside the
    main thread, the handler is not replaced; a worker thread that fits one of several models stops
    when all fits stop.
    """
    worker = current_worker()
    if worker is not None:
        yield worker.is_stopped
        return
    present = signal.getsignal(signal.SIGINT)
    presses = present if isinstance(present, _Presses) else _Presses()
    with _handled(signal.SIGINT, presses, instead_of=signal.default_int_handler):
        yield lambda: presses.is_pressed


def ctrl_c_pressed() -> bool:
    """Whether Ctrl-C was pressed within `interrupts`, in this process."""
    present = signal.getsignal(signal.SIGINT)
    return isinstance(present, _Presses) and present.is_pressed


@contextlib.contextmanager
def terminations() -> Iterator[Callable[[], bool]]:
    """Record SIGTERM as a flag instead of ending the process; yield a function that reads the flag.

    Do nothing outside the main thread or if the user has installed a handler.
    """
    is_asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_asked
        is_asked = True

    with _handled(signal.SIGTERM, handle, instead_of=signal.SIG_DFL):
        yield lambda: is_asked


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Delay Ctrl-C until the block ends: an exception during an import can abort the process."""
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
    """Raise `KeyboardInterrupt` at once on Ctrl-C, even within `interrupts`.

    Use it around long waits between steps. It has no effect outside the main thread, which may be
    in the middle of a step.
    """
    global _raises_at_once
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous, _raises_at_once = _raises_at_once, True
    try:
        yield
    finally:
        _raises_at_once = previous
