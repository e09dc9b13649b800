"""The trainer for a model in a stack, which holds the state during training."""

from __future__ import annotations

from mlp_xp.backends import Backend, get_backend
from mlp_xp.training.divergence.guard import Guard, has_finite_state
from mlp_xp.training.step.base_trainer import BaseTrainer
from mlp_xp.training.trainer import Trainer


class StackError(Exception):
    """Raised if a stack cannot train a model, which must then be fitted alone."""


class _StackGuard(Guard):
    """The guard for a model in a stack, which checks the state but does not repeat steps."""

    def check(self, trainer: BaseTrainer, done: int | None = None) -> None:
        """Raise `StackError` if the state is not finite."""
        if not has_finite_state(trainer):
            raise StackError("The state is not finite.")


class StackedTrainer(Trainer):
    """A trainer whose state is in host memory, except while a stack trains it."""

    guard_type = _StackGuard

    @property
    def home(self) -> Backend:
        """The backend that stores the state."""
        return get_backend("numpy")

    @property
    def takes_dropout_rates(self) -> bool:
        """Whether the dropout rates are inputs of a step."""
        return self.rules.network.n_keys > 0

    def release_memory(self) -> None:
        """Release nothing, since the stack owns the memory."""
