"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_xp.augmentation import Augmentation
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network
from mlp_xp.optimizers import Optimizer
from mlp_xp.optimizers.schedules import Constant, Schedule

__all__ = ["Rules"]


@dataclass(frozen=True)
class Rules:
    """The settings of a training step and of its schedule.

    Parameters
    ----------
    network, loss, optimizer, schedule : frozen settings
    learning_rate : float
        Multiplied by the schedule's factor.
    alpha : float of at least 0, default=0
        Strength of the L2 penalty, as scikit-learn scales it: divided by the samples of the batch.
    max_grad_norm : float above 0, optional
        Clip the norm of all gradients together to this.
    ema_decay : float in [0, 1), optional
        Decay of an exponential moving average of the weights; None has no average.
    augmentation : tuple of Augmentation, default=()
        Applied to the samples of each batch.
    dropout_schedule, weight_decay_schedule : Schedule, optional
        Factors of the rates of dropout, and of the weight decay of the optimizer.
    """

    network: Network
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule = Constant()  # noqa: RUF009
    learning_rate: float = 0.001
    alpha: float = 0.0
    max_grad_norm: float | None = None
    ema_decay: float | None = None
    augmentation: tuple[Augmentation, ...] = ()
    dropout_schedule: Schedule | None = None
    weight_decay_schedule: Schedule | None = None

    @property
    def has_own_functions(self) -> bool:
        """Whether a step calls functions of the user, which may read what changes between fits."""
        activation = self.network.activation
        functions = activation if isinstance(activation, tuple) else (activation,)
        return self.loss.is_own or any(map(callable, functions))
