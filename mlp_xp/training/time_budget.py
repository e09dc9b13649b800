"""The time that a fit may take, and what its parts have taken so far."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field

__all__ = ["Budget", "Pace"]

# Steps between two looks at the clock: each waits for the device, whose queue then runs dry.
_LOOK_SECONDS = 0.02
# Measurements that count: one that something else on the machine disturbed is soon forgotten.
_REMEMBERED = 5
_MARK_SECONDS = 0.25


@dataclass
class Budget:
    """Tells how many steps still fit into a time, from what steps have taken so far.

    The clock runs from the beginning, and the caller says at what point the fit is: `count` when
    steps are done, and `between` when everything behind the steps of an epoch is done, validation
    above all, for which time is then kept. The first step, which may compile, is no measure of the
    others.

    Parameters
    ----------
    seconds : float above 0
    start : float, optional
        When the time began, of `time.perf_counter`; default now.

    Examples
    --------
    >>> from mlp_xp.training.time_budget import Budget
    >>> budget = Budget(1000.0)
    >>> budget.count(1)
    >>> budget.next_steps(10), budget.fraction() < 0.1
    (1, True)
    """

    seconds: float
    start: float = field(default_factory=lambda: time.perf_counter())
    _mark: float = field(init=False)
    _has_stepped: bool = field(default=False, init=False)
    _paces: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED), init=False)
    _betweens: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED), init=False)

    def __post_init__(self) -> None:
        self._mark = time.perf_counter()

    def mark(self) -> None:
        """Record that what has been done since the last call is of no interest."""
        self._lap()

    def count(self, n_steps: int) -> None:
        """Record that so many steps have been done since the last call of anything."""
        seconds = self._lap()
        if self._has_stepped:
            self._paces.append(seconds / n_steps)
        self._has_stepped = True

    def between(self) -> None:
        """Record that what is between two epochs has been done since the last call of anything."""
        self._betweens.append(self._lap())

    def next_steps(self, most: int) -> int:
        """Return how many steps to do before the clock is looked at again; 0 where none fits."""
        left = self.start + self.seconds - self._reserve - time.perf_counter()
        pace = self._pace
        if left <= 0.0 or pace is None:
            return min(most, 1 if left > 0.0 else 0)
        fit = most
        if left < most * pace:
            # Half of what is left, and half again: a forecast of few steps is off by little.
            fit = math.ceil(math.floor(left / pace) / 2)
        if pace:
            fit = min(fit, max(1, math.floor(_LOOK_SECONDS / pace)))
        # A power of two: what is compiled for a shape is compiled for few.
        return 1 << (fit.bit_length() - 1) if fit else 0

    def fraction(self, ahead: int = 0) -> float:
        """Return the share of the time for steps that will have passed so many steps from now."""
        passed = time.perf_counter() - self.start + ahead * (self._pace or 0.0)
        usable = self.seconds - self._reserve
        return passed / usable if passed < usable else 1.0

    @property
    def _pace(self) -> float | None:
        return sorted(self._paces)[len(self._paces) // 2] if self._paces else None

    @property
    def _reserve(self) -> float:
        return max(self._betweens, default=0.0)

    def _lap(self) -> float:
        before, self._mark = self._mark, time.perf_counter()
        return self._mark - before


@dataclass
class Pace:
    """How long something will take, from the share of it that is done.

    Nothing before the first share counts, and later only the latter half of what has been done: the
    first step may have compiled, and so may the first validation.

    Examples
    --------
    >>> from mlp_xp.training.time_budget import Pace
    >>> pace = Pace()
    >>> pace.update(1.0)
    >>> pace.seconds_left()
    0.0
    """

    _start: float = field(default_factory=lambda: time.perf_counter())
    _first: float = 0.0
    # (when, share), oldest first: where the latter half began, and what may be that later.
    _marks: deque[tuple[float, float]] = field(default_factory=deque)
    _now: tuple[float, float] = (0.0, 0.0)

    def update(self, share: float) -> None:
        """Record the share that is done, from 0 to 1."""
        marks, now = self._marks, time.perf_counter()
        self._now = (now, share)
        if not marks:
            self._first = share
        if not marks or now >= marks[-1][0] + _MARK_SECONDS:
            marks.append(self._now)
        while len(marks) > 1 and marks[1][1] <= (self._first + share) / 2:
            marks.popleft()

    def seconds_left(self) -> float:
        """Return how long the rest will take; infinity where nothing is done."""
        now, share = self._now
        then, before = self._marks[0] if self._marks else (self._start, 0.0)
        if share <= before:  # One share is no measure of the next, but there is no other.
            then, before = self._start, 0.0
        return (1.0 - share) * (now - then) / (share - before) if share > before else math.inf
