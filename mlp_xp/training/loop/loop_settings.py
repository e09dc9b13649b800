"""Settings of a fit that training steps do not need, and its validation samples and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params
from mlp_xp.training.loop.records import Record, Running


@dataclass(frozen=True)
class LoopSettings:
    """The settings of a fit that training steps do not need.

    ``patience`` is the number of epochs in a row without an improvement by ``tol``.
    ``stops_by_score`` is whether the validation score decides, instead of the loss; ``is_adaptive``
    whether a plateau lowers the learning rate first; ``has_open_end`` whether ``max_iter`` is only
    a limit, not the end of a schedule. ``max_fun`` limits L-BFGS, and is None for training step by
    step. ``keeps_step`` keeps the memory of the compiled step for another fit.
    """

    max_iter: int
    batch_size: int
    shuffle: bool
    tol: float
    patience: float
    stops_by_score: bool
    is_adaptive: bool
    has_open_end: bool
    max_time: float | None
    max_fun: int | None
    keeps_step: bool
    verbose: bool | int

    @property
    def is_planned(self) -> bool:
        """Whether all epochs will run, because of a schedule or since nothing can stop the fit."""
        return not self.has_open_end or self.patience == math.inf


class LoopPosition(NamedTuple):
    """Values that a fit passes on to the next one, besides the state of the trainer.

    ``first_epoch`` is the trainer's epoch at which the schedule begins, ``rate_factor`` multiplies
    the learning rate, and ``stale_epochs`` counts epochs without improvement.
    """

    first_epoch: int = 0
    rate_factor: float = 1.0
    stale_epochs: int = 0


class Validation(Protocol):
    """Held-out samples.

    ``looks_at_model`` is whether the score depends on more than predictions.
    """

    looks_at_model: bool

    def measure_each(
        self, params: Params, batch_stats: tuple[BatchStats, ...]
    ) -> Iterable[tuple[float, float]]:
        """Return the result of `measure` for each entry of the first axis of the weights."""
        ...

    def measure(self) -> tuple[float, float]:
        """Return the loss and the score of the network in training; a higher score is better."""
        ...


class Watcher(Protocol):
    """The receiver of a fit's reports: it publishes attributes and calls callbacks."""

    watches_epochs: bool
    watches_steps: bool
    watches_pauses: bool

    def begin_epoch(self) -> None:
        """Report that an epoch begins."""
        ...

    def end_step(self, done: int, n_steps: int) -> bool:
        """Report that a step has ended; return whether the fit should end."""
        ...

    def report(self, done: int, n_steps: int, running: Running | None) -> None:
        """Report the steps of the epoch so far, and its averages if they are known."""
        ...

    def end_epoch(self, record: Record) -> bool:
        """Report that an epoch has ended; return whether the fit should end."""
        ...

    def pause(self, step: int, is_interrupted: bool) -> None:
        """Report that the training can be saved now, after some or no steps of an epoch.

        ``is_interrupted`` is whether Ctrl-C ends the fit after it.
        """
        ...
