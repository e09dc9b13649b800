"""The models of a stack: trainers that ask for their epochs, which others train with theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import map_leaves
from mlp_xp.backends import get_backend, to_numpy
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.batches import Data
from mlp_xp.training.divergence import Guard
from mlp_xp.training.epochs import EpochPlan
from mlp_xp.training.finite import is_finite
from mlp_xp.training.records import Record
from mlp_xp.training.scalars import Stage
from mlp_xp.training.shared import SharedResident
from mlp_xp.training.step import TrainState, init_state
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
        self.initial: TrainState | None = None
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
        self._state, self.find_state, self.initial = state, None, None

    def reset(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        """Set the state before the first step, which a stack takes from the host."""

        def own(tree: Tree) -> Tree:
            return map_leaves(lambda leaf: np.array(to_numpy(leaf), dtype=self.dtype), tree)

        initial = init_state(
            own(params),
            self.rules.optimizer,
            batch_stats=own(batch_stats),
            average=own(params) if self.rules.ema_decay is not None else (),
            with_accuracy=self.with_accuracy,
            with_loss_scale=self.backend.scales_loss,
            xp=get_backend("numpy").xp,
        )

        def find_state() -> TrainState:
            with self.backend.scope():
                state: TrainState = self._own(initial)
            return state

        self.initial, self.find_state, self.n_steps = initial, find_state, 0

    def copy(self) -> TrainState:
        """Return a copy of the state in the host's memory."""
        return super().copy() if self.initial is None else self.initial

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
