"""The results of an epoch, and the state needed to resume training."""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.step.loss_scaling import LossScale


class Record(NamedTuple):
    """The results of an epoch.

    ``epoch`` counts from 1; ``loss`` is the average over the samples, including the penalty, with
    each batch's loss computed before its update; so is ``accuracy``, which is None unless
    requested. ``learning_rate`` is the last step's, and ``seconds`` includes the wait for the
    device. The last two fields are for the validation data after the epoch, or None without
    validation data.
    """

    epoch: int
    loss: float
    accuracy: float | None
    learning_rate: float
    n_samples: int
    seconds: float
    validation_loss: float | None = None
    validation_score: float | None = None


class Running(NamedTuple):
    """The averages of an epoch so far, as last read from the device.

    ``loss`` and ``accuracy`` are as in `Record`, but over fewer samples.
    """

    loss: float
    accuracy: float | None


class ResumeState(NamedTuple):
    """The state that only training needs, not predictions: NumPy arrays and counts.

    ``params`` are the weights themselves if predictions use their moving average, otherwise ``()``.
    ``best`` are the weights and batch statistics with the best score so far, in an unfinished fit
    in which the score decides, otherwise ``()``. ``rule`` names the kind of update rule that the
    optimizer's state belongs to, and ``rule_start`` is the step at which it began; the counts are
    `Trainer`'s. ``loss_scale`` is for products in float16, otherwise ``()``.
    """

    params: Params
    opt_state: tuple[Params, ...]
    n_epochs: int
    n_steps: int
    n_samples: int
    rule: str
    rule_start: int
    best: tuple[Params, tuple[BatchStats, ...]] | tuple[()] = ()
    loss_scale: LossScale | tuple[()] = ()
