"""Decisions that depend on the clock, which rank 0 makes for all ranks of a distributed fit.

Decisions that depend on the numbers are the same on all ranks, which hold the same bits.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mlp_xp.backends import Communicator
from mlp_xp.training.divergence.finite import NonFiniteError
from mlp_xp.training.divergence.guard import Guard
from mlp_xp.training.loop.time_budget import Budget
from mlp_xp.training.step.step_table import Repeatable

__all__ = ["AgreedBudget", "AgreedGuard"]


class AgreedGuard(Guard):
    """A guard that looks on all ranks at once."""

    def __init__(self, communicator: Communicator) -> None:
        super().__init__()
        self._communicator = communicator

    def _is_look_due(self, now: float, waits: bool) -> bool:
        return self._communicator.broadcast(super()._is_look_due(now, waits))

    def _is_copy_due(self, trainer: Repeatable, now: float) -> bool:
        return self._communicator.broadcast(super()._is_copy_due(trainer, now))

    def _error(self, trainer: Repeatable, done: int | None) -> NonFiniteError:
        """Return the error of the rank whose samples are the cause, or else of rank 0."""
        mine = super()._error(trainer, done)
        found = self._communicator.gather((str(mine), mine.layer, mine.cause))
        text, layer, cause = next((f for f in found if f[2] != "rate"), found[0])
        return NonFiniteError(text, epoch=mine.epoch, step=mine.step, layer=layer, cause=cause)


@dataclass
class AgreedBudget(Budget):
    """The time limit of rank 0, and its forecasts."""

    communicator: Communicator = field(kw_only=True)
    _elapsed: float = field(default=0.0, init=False)
    _seconds_of_step: float = field(default=0.0, init=False)
    _usable: float = field(default=0.0, init=False)

    def next_steps(self, most: int) -> int:
        """Return how many steps to do before the clock is read again; 0 if none fits."""
        steps = super().next_steps(most)
        now = time.perf_counter() - self.start
        mine = steps, now, self._pace or 0.0, self.seconds - self._reserve
        agreed = self.communicator.broadcast(mine)
        steps, self._elapsed, self._seconds_of_step, self._usable = agreed
        return steps

    def fraction(self, ahead: int = 0) -> float:
        """Return the share of the time for steps that will have passed, as `next_steps` saw it."""
        passed = self._elapsed + ahead * self._seconds_of_step
        return passed / self._usable if passed < self._usable else 1.0
