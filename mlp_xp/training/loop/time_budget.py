"""A fit's time limit, and forecasts from measured times."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Seconds between two readings of the clock. Each reading waits until the device's queue is empty.
_LOOK_SECONDS = 0.02
# The number of measurements kept: few, so that an outlier caused by another process is dropped
# soon.
_REMEMBERED = 5
_MARK_SECONDS = 0.25


@dataclass
class Budget:
    """A time limit, with an estimate of how many more steps fit.

    The clock runs from ``start``. The caller calls `count` after steps, and `between` after the
    work that follows an epoch's steps, mainly validation. The budget then reserves time for this
    work, and ``n_after`` times as much for what follows the last epoch. The first step is not
    measured, since it may include compilation. ``decide`` returns the first process's decision in
    all processes of a fit, since their clocks and speeds differ.
    """

    seconds: float
    start: float = field(default_factory=lambda: time.perf_counter())
    decide: Callable[[Any], Any] = lambda decision: decision
    n_after: int = 0
    # Results of `next_steps`: seconds elapsed, seconds per step, and seconds left for steps.
    _passed: float = field(default=0.0, init=False)
    _per_step: float = field(default=0.0, init=False)
    _usable: float = field(default=math.inf, init=False)
    _mark: float = field(init=False)
    _has_stepped: bool = field(default=False, init=False)
    _paces: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED), init=False)
    _betweens: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED), init=False)

    def __post_init__(self) -> None:
        self._mark = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        last, self._mark = self._mark, time.perf_counter()
        return self._mark - last

    def count(self, n_steps: int) -> None:
        """Record the time of the steps done since the last call."""
        seconds = self.lap()
        if self._has_stepped:
            self._paces.append(seconds / n_steps)
        self._has_stepped = True

    def between(self) -> None:
        """Record the time since the last call as work between two epochs."""
        self._betweens.append(self.lap())

    def next_steps(self, most: int) -> int:
        """Return how many steps to run before reading the clock again; 0 if no time is left."""
        pace = sorted(self._paces)[len(self._paces) // 2] if self._paces else None
        passed = time.perf_counter() - self.start
        usable = self.seconds - (1 + self.n_after) * max(self._betweens, default=0.0)
        n_steps = _steps_within(usable - passed, pace, most)
        decision = self.decide((n_steps, passed, pace or 0.0, usable))
        n_steps, self._passed, self._per_step, self._usable = decision
        return n_steps

    def fraction(self, ahead: int = 0) -> float:
        """Return the fraction of the training time used after ``ahead`` more steps."""
        passed = self._passed + ahead * self._per_step
        return passed / self._usable if passed < self._usable else 1.0


def _steps_within(left: float, pace: float | None, most: int) -> int:
    """Return how many steps to run before reading the clock again, with ``left`` seconds left."""
    if left <= 0.0 or pace is None:
        return min(most, 1 if left > 0.0 else 0)
    fit = most
    if left < most * pace:
        # Plan half of the remaining time, then half of the rest, since short forecasts are more
        # accurate.
        fit = math.ceil(math.floor(left / pace) / 2)
    if pace:
        fit = min(fit, max(1, math.floor(_LOOK_SECONDS / pace)))
    # Round down to a power of two, so that backends that compile per shape see few shapes.
    return 1 << (fit.bit_length() - 1) if fit else 0


@dataclass
class Pace:
    """A forecast of the remaining time from the fraction of completed work.

    The speed is measured over the second half of the work reported so far, since the first step and
    the first validation may include compilation.
    """

    _start: float = field(default_factory=lambda: time.perf_counter())
    _first: float = 0.0
    # Pairs (time, fraction), oldest first. The first pair is the start of the measured half.
    _marks: deque[tuple[float, float]] = field(default_factory=deque)
    _now: tuple[float, float] = (0.0, 0.0)

    def update(self, fraction: float) -> None:
        """Record the completed fraction, from 0 to 1."""
        marks, now = self._marks, time.perf_counter()
        self._now = (now, fraction)
        if not marks:
            self._first = fraction
        if not marks or now >= marks[-1][0] + _MARK_SECONDS:
            marks.append(self._now)
        while len(marks) > 1 and marks[1][1] <= (self._first + fraction) / 2:
            marks.popleft()

    def seconds_left(self) -> float:
        """Return the remaining seconds; infinity before any progress."""
        now, fraction = self._now
        then, fraction_then = self._marks[0] if self._marks else (self._start, 0.0)
        if fraction <= fraction_then:  # After only one report, measure from the start of the fit.
            then, fraction_then = self._start, 0.0
        if fraction <= fraction_then:
            return math.inf
        return (1.0 - fraction) * (now - then) / (fraction - fraction_then)
