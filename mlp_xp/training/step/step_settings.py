"""The settings of training steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from numbers import Number
from typing import Any

from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.signals.forks import cached_property
from mlp_xp.augmentation import Augmentation
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import Optimizer
from mlp_xp.optimizers.schedules import Constant, Schedule


@dataclass(frozen=True)
class Rules:
    """The settings of a training step, and the schedule that multiplies the learning rate.

    ``alpha`` is the strength of the L2 penalty, which is divided by the batch size as in
    scikit-learn. ``max_grad_norm`` clips the joint norm of all gradients, and ``ema_decay`` is the
    decay of the exponential moving average of the weights. The schedules of dropout and weight
    decay multiply the dropout rates and the weight decay.
    """

    network: Network
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule = Constant()
    learning_rate: float = 0.001
    alpha: float = 0.0
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    augmentation: tuple[Augmentation, ...] = ()
    dropout_schedule: Schedule | None = None
    weight_decay_schedule: Schedule | None = None

    @cached_property
    def has_own_functions(self) -> bool:
        """Whether a step calls the user's functions, which may read changing values."""
        called = self.network, self.loss, self.optimizer, self.augmentation
        return next(own_parts(called), None) is not None


def own_parts(settings: Any) -> Iterator[Any]:
    """Yield the user's functions and instances of the user's classes, at any depth in settings."""
    if isinstance(settings, list | tuple):
        for entry in settings:
            yield from own_parts(entry)
    elif not isinstance(settings, Number | str | None):
        if not (getattr(settings, "__module__", None) or "").startswith("mlp_xp."):
            yield settings
        is_object = is_dataclass(settings) and not isinstance(settings, type)
        for field in fields(settings) if is_object else ():
            yield from own_parts(getattr(settings, field.name))
