"""The results of an epoch, and the state needed to resume training."""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.step.loss_scaling import LossScale


class Record(NamedTuple):
    """The results of an epoch.

    ``epoch`` counts from 1; ``loss`` is the average over the samples, penalty included, each batch
    taken before its update; ``accuracy`` likewise, or None unless wanted; ``learning_rate`` is the
    last step's; ``seconds`` end when the device has finished. The last two fields are for the
    validation data after the epoch, or None without any.
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

    ``loss`` is as in `Record`, over fewer samples; so is ``accuracy``, or None unless wanted.
    """

    loss: float
    accuracy: float | None


class ResumeState(NamedTuple):
    """The state of a training besides what it predicts with: NumPy arrays and counts.

    ``params`` are the weights themselves where predictions use their moving average, else ``()``.
    ``best`` are the weights and batch statistics of the best score so far, of an unfinished fit in
    which the score decides, otherwise ``()``. ``rule`` names the kind of update rule that the
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
