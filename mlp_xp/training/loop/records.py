"""An epoch's results, and the state needed to resume training."""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.step.loss_scaling import LossScale


class Record(NamedTuple):
    """The results of an epoch.

    ``epoch`` counts from 1. ``loss`` includes the penalty. ``loss`` and ``accuracy`` are averages
    over the samples, with each batch evaluated before its update; ``accuracy`` is None unless
    requested. ``learning_rate`` is the rate of the last step, and ``seconds`` includes waiting for
    the device. ``validation_loss`` and ``validation_score`` are measured after the epoch, or are
    None if there are no validation data.
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
    """An unfinished epoch's averages, as last read from the device.

    ``loss`` and ``accuracy`` are defined as in `Record`, but cover fewer samples.
    """

    loss: float
    accuracy: float | None


class ResumeState(NamedTuple):
    """The state needed to resume training but not to predict: NumPy arrays and counts.

    ``params`` are the weights themselves if predictions use their moving average, otherwise ``()``.
    ``best`` contains the weights and batch statistics with the best score so far if an unfinished
    fit uses its validation score for early stopping, otherwise ``()``. ``rule`` names the kind of
    update rule to which ``opt_state`` belongs, and ``rule_start`` is the step at which this rule
    began. ``loss_scale`` is ``()`` unless matrix products use float16.
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
