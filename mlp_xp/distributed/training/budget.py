"""The time limit of a distributed fit, which rank 0 enforces for all ranks.

All other decisions depend on computed numbers, which are bitwise equal on all ranks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mlp_xp.distributed.communicator import Communicator
from mlp_xp.training.loop.time_budget import Budget


@dataclass
class AgreedBudget(Budget):
    """A time limit for all ranks, based on rank 0's clock and forecasts."""

    communicator: Communicator = field(kw_only=True)
    _elapsed: float = field(default=0.0, init=False)
    _seconds_of_step: float = field(default=0.0, init=False)
    _usable: float = field(default=0.0, init=False)

    def next_steps(self, most: int) -> int:
        """Return how many steps to run before reading the clock again; 0 if no time is left."""
        steps = super().next_steps(most)
        now = time.perf_counter() - self.start
        mine = steps, now, self._pace or 0.0, self.seconds - self._reserve
        agreed = self.communicator.broadcast(mine)
        steps, self._elapsed, self._seconds_of_step, self._usable = agreed
        return steps

    def fraction(self, ahead: int = 0) -> float:
        """Return the fraction of the training time that has passed on rank 0's clock."""
        passed = self._elapsed + ahead * self._seconds_of_step
        return passed / self._usable if passed < self._usable else 1.0
