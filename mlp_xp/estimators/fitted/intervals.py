"""Conformal quantiles: a network's own, corrected by its errors on samples it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Namespace
from mlp_xp.nn.losses import Loss


class Calibration(NamedTuple):
    """Errors on held-out samples, (samples, targets, kinds), sorted along the first axis.

    They are distances from each quantile that the loss has, else from the prediction, divided by
    its standard deviation if there is one.
    """

    scores: Any


def calibrate(loss: Loss, outputs: np.ndarray, y: np.ndarray) -> Calibration:
    """Return the errors of activated outputs for targets, both (samples, columns)."""
    xp: Any = np
    centers, spread = loss.centers(outputs, xp=xp)  # type: ignore[arg-type]
    if np.shape(centers)[-1] > 1:
        _check_levels(loss.levels, len(y))
    scores: Any = (y[..., None] - centers) / spread
    return Calibration(np.sort(scores, axis=0).astype(outputs.dtype))


def calibrated_quantiles(
    loss: Loss,
    outputs: Any,
    levels: Sequence[float],
    calibration: Calibration,
    put: Callable[[np.ndarray], Any],
    *,
    xp: Namespace,
) -> Any:
    r"""Return quantiles of each target, (samples, targets, levels), of activated outputs.

    The quantile :math:`q` is the network's plus the quantile :math:`q` of its errors on the n
    samples of the calibration, at the position :math:`q\,(n + 1)`. A new error has each of the n +
    1 ranks among them with the same probability, so a fraction :math:`q` lies below, whatever the
    network has learned. Where bounds would cross, the upper one is raised. ``put`` returns an array
    of the host in the dtype and on the device of the outputs.

    Romano, Patterson, Candès, "Conformalized quantile regression" (2019), arXiv:1905.03222, theorem
    2; Papadopoulos, Proedrou, Vovk, Gammerman, "Inductive confidence machines for regression"
    (2002), for errors in units of their expected size.
    """
    scores = calibration.scores
    _check_levels(levels, len(scores))
    centers, spread = loss.centers(outputs, xp=xp)
    kinds = [0] * len(levels)
    if scores.shape[-1] > 1:
        loss.quantiles(outputs, levels, xp=xp)  # Raises an error for other levels.
        kinds = [int(np.argmin(np.abs(np.subtract(loss.levels, level)))) for level in levels]
    size = spread if isinstance(spread, float) else spread[..., 0]
    found = []
    for kind, level in zip(kinds, levels, strict=True):
        error = np.quantile(scores[..., kind], level, axis=0, method="weibull")
        found.append(centers[..., kind] + size * put(error.astype(scores.dtype)))
    order = sorted(range(len(levels)), key=levels.__getitem__)
    for low, high in pairwise(order):
        found[high] = xp.maximum(found[low], found[high])
    return xp.stack(found, axis=-1)


def _check_levels(levels: Sequence[float], n_samples: int) -> None:
    """Raise ValueError for levels that so few samples say nothing about."""
    for level in levels:
        if not 0.0 < level < 1.0:
            raise ValueError(f"`quantiles` must be above 0 and below 1, got {level}.")
        needed = math.ceil(round(1.0 / min(level, 1.0 - level), 6)) - 1
        if n_samples < needed:
            raise ValueError(
                f"`calibrate_intervals` must have at least {needed} samples for the quantile "
                f"{level}, got {n_samples}: give more samples, or ask for quantiles nearer to 0.5."
            )
