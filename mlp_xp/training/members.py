"""The models of a stack: trainers that ask for their epochs, which others train with theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlp_xp.training.batches import Data
from mlp_xp.training.divergence import Guard
from mlp_xp.training.epochs import EpochPlan
from mlp_xp.training.finite import is_finite
from mlp_xp.training.records import Record
from mlp_xp.training.scalars import Stage
from mlp_xp.training.shared import SharedResident
from mlp_xp.training.step import TrainState
from mlp_xp.training.trainer import Trainer

__all__ = ["DivergedError", "EpochRequest", "MemberTrainer", "StackGuard"]


class DivergedError(Exception):
    """A loss or weights of a model of a stack that are not finite: its own fit finds the cause."""


@dataclass(eq=False)
class EpochRequest:
    """An epoch that a fit asks for, and its record once it is trained."""

    trainer: MemberTrainer
    data: SharedResident
    plan: EpochPlan
    stage: Stage
    record: Record | None = None
    error: BaseException | None = None
    is_done: bool = False


class MemberTrainer(Trainer):
    """The trainer of a model of a stack, while it has one.

    Parameters
    ----------
    *args, **settings
        Of a `Trainer`.
    train : callable
        `Stacks.train`.
    """

    def __init__(
        self, *args: Any, train: Callable[[EpochRequest], Record], **settings: Any
    ) -> None:
        self.find_state: Callable[[], TrainState] | None = None
        self._train = train
        super().__init__(*args, **settings)

    @property
    def state(self) -> TrainState:
        """The state; that of a stack is copied when it is asked for."""
        if self.find_state is not None:
            self._state, self.find_state = self.find_state(), None
        return self._state

    @state.setter
    def state(self, state: TrainState) -> None:
        self._state, self.find_state = state, None

    def run_epoch(self, data: Data, plan: EpochPlan, **settings: Any) -> Record:
        """Train for one epoch, together with other models where that can be."""
        needs_own = (
            settings["budget"] is not None
            or settings["step_by_step"]
            or settings["first_step"]
            or self.rules.augmentation
            or self.backend.scales_loss
            or self.with_accuracy
        )
        if needs_own or not isinstance(data, SharedResident):
            return super().run_epoch(data, plan, **settings)
        done = self.n_epochs - settings["first_epoch"]
        stage = Stage(done, settings["n_epochs"], settings["rate_factor"])
        return self._train(EpochRequest(self, data, plan, stage))


class StackGuard(Guard):
    """The guard of a model of a stack, which has no steps to repeat."""

    def check(self, trainer: Any, done: int | None = None) -> None:
        """Raise `DivergedError` if weights are not finite."""
        state = trainer.state
        if not is_finite(trainer.backend, (state.params, state.batch_stats, state.average)):
            raise DivergedError("Weights are not finite.")
