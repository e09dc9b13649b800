"""What ends a training: a plateau, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import numpy as np

__all__ = ["Plateau", "interrupts", "postponed"]


class Plateau:
    """Scikit-learn's rule: stop when a loss has not fallen by ``tol`` for too many epochs.

    Parameters
    ----------
    tol : float
    patience : int or inf
        How many epochs in a row may pass without such a fall.
    best : float, default=inf
        The lowest loss so far.

    Examples
    --------
    >>> from mlp_xp.stopping import Plateau
    >>> plateau = Plateau(tol=0.1, patience=1)
    >>> [plateau.reached(loss) for loss in (1.0, 0.5, 0.45, 0.44)]
    [False, False, False, True]
    """

    def __init__(self, tol: float, patience: float, best: float = np.inf) -> None:
        self.tol = tol
        self.patience = patience
        self.best = best
        self.count = 0

    def reached(self, loss: float) -> bool:
        """Take the loss of an epoch; tell whether to stop."""
        self.count = self.count + 1 if loss > self.best - self.tol else 0
        self.best = min(self.best, loss)
        return self.count > self.patience


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
        if pressed:
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
