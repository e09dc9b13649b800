"""A fit's requests for epochs, which its trainer runs alone or in a stack with other models."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import numpy as np

from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.data.placement import Data
from mlp_xp.training.loop.loop_settings import LoopPosition, LoopSettings, Validation
from mlp_xp.training.loop.records import Record
from mlp_xp.training.step.step_table import SchedulePosition
from mlp_xp.training.trainer import Trainer

if TYPE_CHECKING:  # Imported on first use, since few fits have a time limit.
    from mlp_xp.training.loop.time_budget import Budget

T = TypeVar("T")


class Trained(NamedTuple):
    """A trained epoch; after validation, ``learned()`` returns its weights and batch statistics."""

    record: Record
    learned: Callable[[], tuple[Params, tuple[BatchStats, ...]]] | None = None


@dataclass(frozen=True, eq=False)
class TrainingRequest:
    """A request to train a fit's next epochs: at least one, at most ``n_epochs``.

    ``at_end`` is closed when the fit needs no more epochs. In a request for one epoch,
    ``after_step(done, n_steps)`` is called after each step if ``step_by_step`` is true, otherwise
    about every tenth of a second. It returns True to end the epoch. ``first_step`` is the number of
    that epoch's steps already completed. ``n_left`` is the maximum number of epochs left, including
    these.
    """

    trainer: Trainer
    data: Data
    settings: LoopSettings
    position: LoopPosition
    weights: np.ndarray | None
    validation: Validation | None
    at_end: ExitStack
    n_epochs: int
    budget: Budget | None
    after_step: Callable[[int, int], bool]
    step_by_step: bool
    first_step: int
    n_left: int

    @property
    def schedule_position(self) -> SchedulePosition:
        """The position of the trainer's next epoch in the fit's schedule."""
        done = self.trainer.n_epochs - self.position.first_epoch
        return SchedulePosition(done, self.settings.max_iter, self.position.rate_factor)

    @property
    def batch_size(self) -> int:
        """The number of samples per batch."""
        return min(self.settings.batch_size, self.data.n_samples)

    def plan(self, later: int = 0, *, pad: bool = False) -> EpochPlan:
        """Return the plan of the trainer's next epoch, or of a later one; see `plan_epoch`."""
        trainer = self.trainer
        return self.data.plan(
            self.settings.batch_size,
            seed=trainer.seed if self.settings.shuffle else None,
            epoch=trainer.n_epochs + later,
            weights=self.weights,
            pad=pad or trainer.backend.fixed_shapes,
        )


# A generator that yields requests, receives trained epochs, and returns when the fit ends.
Fit: TypeAlias = Generator[TrainingRequest, list[Trained], T]
