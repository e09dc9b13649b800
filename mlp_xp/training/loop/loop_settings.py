"""Settings of a fit's loop, and the interface for validation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.network import Params


@dataclass(frozen=True)
class LoopSettings:
    """The settings of a fit's loop.

    ``patience`` is the maximum number of consecutive epochs without an improvement by ``tol``. If
    ``stops_by_score`` is true, early stopping uses the validation score instead of the loss. If
    ``is_adaptive`` is true, a plateau lowers the learning rate before training stops. If
    ``has_open_end`` is true, ``max_iter`` is only a limit, not the end of a schedule. ``max_fun``
    is the maximum number of function evaluations of L-BFGS, or None for other solvers. If
    ``keeps_step`` is true, the memory of the compiled step is kept for another fit. After training,
    the network is calibrated ``n_calibrations`` times with the held-out samples. If
    ``restart_factor`` is not None, an overfitted network is trained again with a learning rate that
    is larger by this factor.
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
    n_calibrations: int
    restart_factor: float | None
    verbose: bool | int

    @property
    def is_planned(self) -> bool:
        """Whether all epochs are expected to run: there is a schedule or no early stopping."""
        return not self.has_open_end or self.patience == math.inf


class LoopPosition(NamedTuple):
    """Values passed from one fit to the next, besides the trainer's state.

    ``first_epoch`` is the trainer's epoch at which the schedule begins, ``rate_factor`` multiplies
    the learning rate, and ``stale_epochs`` counts epochs without improvement. ``n_epochs`` is the
    length of the schedule after a restart, or 0 before it, when `max_iter` is the length.
    """

    first_epoch: int = 0
    rate_factor: float = 1.0
    stale_epochs: int = 0
    n_epochs: int = 0


def epochs_after_restart(max_iter: int) -> int:
    """Return the number of epochs after the restart of an overfitted network."""
    return math.ceil(0.625 * max_iter)


class Validation(Protocol):
    """Held-out samples, and how to evaluate the network on them.

    If ``looks_at_model`` is true, the score may depend on the model itself, not only on its
    predictions.
    """

    looks_at_model: bool

    def measure_each(
        self, params: Params, batch_stats: tuple[BatchStats, ...]
    ) -> Iterable[tuple[float, float]]:
        """Return the loss and score for each set of weights along the first axis."""

    def measure(self) -> tuple[float, float]:
        """Return the current network's loss and score; a higher score is better."""
