"""The models of a stack: trainers that ask for their epochs, which others train with theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from mlp_xp.backends import get_backend
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.batches import Data
from mlp_xp.training.divergence import Guard
from mlp_xp.training.epochs import EpochPlan, plan_epoch
from mlp_xp.training.finite import is_finite
from mlp_xp.training.fit_settings import LoopSettings
from mlp_xp.training.records import Record
from mlp_xp.training.scalars import Stage
from mlp_xp.training.shared import SharedResident
from mlp_xp.training.step import TrainState
from mlp_xp.training.stretches import Trained
from mlp_xp.training.trainer import Trainer

__all__ = ["DivergedError", "EpochsRequest", "MemberTrainer", "StackGuard"]


class DivergedError(Exception):
    """A loss or weights of a model of a stack that are not finite: its own fit finds the cause."""


@dataclass(eq=False)
class EpochsRequest:
    """Epochs that a fit asks for, ``n_epochs`` at most, and the records of those that are trained.

    ``stage`` is that of the first of them. ``given`` is its plan, or None where plans are those of
    `plan_epoch` with ``seed`` and ``weights``.
    """

    trainer: MemberTrainer
    data: SharedResident
    batch_size: int
    stage: Stage
    n_epochs: int = 1
    given: EpochPlan | None = None
    seed: int | None = None
    weights: np.ndarray | None = None
    records: list[Record] = field(default_factory=list)
    error: BaseException | None = None
    is_done: bool = False

    @property
    def n_steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.data.n_samples // self.batch_size)

    def plan(self) -> EpochPlan:
        """Return the plan of the next epoch."""
        if self.given is not None:
            return self.given
        return plan_epoch(
            self.data.n_samples,
            self.batch_size,
            seed=self.seed,
            epoch=self.trainer.n_epochs,
            weights=self.weights,
            pad=self.trainer.backend.fixed_shapes,
        )


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
        self, *args: Any, train: Callable[[EpochsRequest], list[Record]], **settings: Any
    ) -> None:
        self.find_state: Callable[[], TrainState] | None = None
        self.find_copy: Callable[[], TrainState] | None = None
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
        self._state, self.find_state, self.find_copy = state, None, None

    def reset(self, params: Params, batch_stats: tuple[BatchStats, ...]) -> None:
        """Set the state before the first step, which a stack takes from the host."""
        initial = self.initial_state(params, batch_stats, get_backend("numpy"))

        def find_state() -> TrainState:
            with self.backend.scope():
                state: TrainState = self._own(initial)
            return state

        self.find_copy, self.find_state, self.n_steps = lambda: initial, find_state, 0

    def copy(self, *names: str) -> TrainState:
        """Return a copy of the state in the host's memory, which a stack makes whole and once."""
        return super().copy(*names) if self.find_copy is None else self.find_copy()

    def release_memory(self) -> None:
        """Release the memory that only steps need, unless it is the stack's."""
        if self.find_state is None:
            super().release_memory()

    def copy_learned(self) -> Any:
        """Return a copy of `learned` and of the batch statistics; a stack's is the host's."""
        if self.find_state is None:
            return super().copy_learned()
        state = self.copy()
        return state.average or state.params, state.batch_stats

    def run_epoch(self, data: Data, plan: EpochPlan, **settings: Any) -> Record:
        """Train for one epoch, together with other models where that can be."""
        needs_own = settings["budget"] is not None or settings["step_by_step"]
        if needs_own or settings["first_step"] or not self._is_member(data):
            return super().run_epoch(data, plan, **settings)
        done = self.n_epochs - settings["first_epoch"]
        stage = Stage(done, settings["n_epochs"], settings["rate_factor"])
        [record] = self._train(EpochsRequest(self, data, plan.batch_size, stage, given=plan))
        return record

    def make_stretches(
        self, data: Data, settings: LoopSettings, weights: np.ndarray | None, first_epoch: int
    ) -> MemberStretches | None:
        """Return what trains several epochs together with other models, None if that cannot be."""
        if not self._is_member(data):
            return None
        return MemberStretches(self, self._train, data, settings, weights, first_epoch)

    def _is_member(self, data: Data) -> TypeGuard[SharedResident]:
        """Whether steps can be those of a stack."""
        has_own = self.rules.augmentation or self.backend.scales_loss or self.with_accuracy
        return isinstance(data, SharedResident) and not has_own


class MemberStretches:
    """The epochs of a model of a stack, several before its thread goes on."""

    def __init__(
        self,
        trainer: MemberTrainer,
        train: Callable[[EpochsRequest], list[Record]],
        data: SharedResident,
        settings: LoopSettings,
        weights: np.ndarray | None,
        first_epoch: int,
    ) -> None:
        self._trainer, self._train, self._data = trainer, train, data
        self._settings, self._weights, self._first_epoch = settings, weights, first_epoch

    def run(self, n_epochs: float, rate_factor: float) -> Iterator[Trained]:
        """Train for so many epochs, or fewer, and yield them."""
        trainer, settings = self._trainer, self._settings
        done = trainer.n_epochs - self._first_epoch
        request = EpochsRequest(
            trainer,
            self._data,
            min(settings.batch_size, self._data.n_samples),
            Stage(done, settings.max_iter, rate_factor),
            int(n_epochs),
            seed=trainer.seed if settings.shuffle else None,
            weights=self._weights,
        )
        return map(Trained, self._train(request))

    def end(self) -> None:
        """Release nothing: the stack has the memory."""


class StackGuard(Guard):
    """The guard of a model of a stack, which has no steps to repeat."""

    def check(self, trainer: Any, done: int | None = None) -> None:
        """Raise `DivergedError` if weights are not finite."""
        state = trainer.copy()
        if not is_finite(get_backend("numpy"), (state.params, state.batch_stats, state.average)):
            raise DivergedError("Weights are not finite.")
