"""Calibration on held-out samples: the temperature of a classifier, and conformal quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.array_types import Namespace
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import get_backend
from mlp_xp.estimators.fitted.groups import Groups, TooFewHeldOutError
from mlp_xp.nn.losses import EachMember, Loss, mean_loss
from mlp_xp.nn.network import Params

_LARGEST = 50.0
_MOST_ERRORS = 10_000  # Kept by each network of an ensemble; more hardly change a quantile.
# Standard deviation of the prior on log T, chosen in 36 fits on nine tables with 46 to 400 held-out
# samples. With 0.15, log loss fell by 1.0 % on average and rose by at most 1.6 %; with 0.25, it
# fell by 0.9 % and rose by at most 4.6 %; with 0.1, it fell by 0.8 % and rose by at most 0.8 %.
_SPREAD = 0.15


class Tempered(NamedTuple):
    """A temperature, and the average log loss of raw outputs divided by the temperature."""

    temperature: float
    loss: float


def fit_temperature(
    log_loss: Loss, logits: Any, targets: Any, weights: np.ndarray | None
) -> Tempered:
    r"""Return the temperature T that minimizes the log loss of :math:`z / T` on held-out samples.

    If the samples are few and all classified correctly, log loss alone is lowest at T = 0. The
    prior :math:`\tfrac12 (\log T / s)^2` with s = 0.15 is therefore added to the sum over the
    samples. It keeps T near 1 unless the samples are clear evidence for another value. Guo, Pleiss,
    Sun, Weinberger, "On calibration of modern neural networks" (2017), arXiv:1706.04599, section
    4.2.
    """
    from scipy.optimize import minimize_scalar  # Import late, since few fits need it.

    z, xp = np.asarray(logits, np.float64), np
    if not np.all(np.isfinite(z)):
        return Tempered(1.0, math.nan)
    if targets.dtype.kind == "f":
        targets = targets.astype(np.float64)

    def loss_at(log_temperature: float) -> float:
        scaled: Any = z * math.exp(-log_temperature)
        # The loss of an ensemble is the loss of the mean probabilities.
        if isinstance(log_loss, EachMember):
            mixed: Any = log_loss.raw_outputs(log_loss.activate(scaled, xp=xp), xp=xp)
            return float(mean_loss(log_loss.loss, mixed, targets, weights, xp=xp)[0])  # type: ignore[arg-type]
        return float(mean_loss(log_loss, scaled, targets, weights, xp=xp)[0])  # type: ignore[arg-type]

    found = minimize_scalar(
        lambda log_t: len(z) * loss_at(log_t) + 0.5 * (log_t / _SPREAD) ** 2,
        bounds=(-math.log(_LARGEST), math.log(_LARGEST)),
        method="bounded",
    )
    return Tempered(math.exp(found.x), loss_at(found.x))


def divided(params: Params, temperature: float | None) -> Params:
    """Return a network's parameters, changed to divide its raw outputs by a temperature."""
    if temperature is None:
        return params
    *others, last = params  # Dividing the last layer's weights and biases divides the outputs.
    with get_backend(leaves(last)[0]).scope():
        return *others, map_leaves(lambda leaf: leaf / temperature, last)


class Calibration(NamedTuple):
    """Prediction errors on held-out samples, sorted along axis 0 within each group.

    The shape is (samples, targets, n), where n is the number of quantiles that the loss predicts,
    or 1. An error is the target minus the predicted quantile or value, divided by the predicted
    standard deviation if the loss predicts one. ``codes : (samples,)``, in ascending order, are the
    groups of the samples, or None for a single group.
    """

    scores: Any
    codes: Any = None

    @classmethod
    def sort(cls, scores: np.ndarray, codes: np.ndarray | None, dtype: Any) -> Calibration:
        """Return errors and groups in the order of a calibration."""
        if codes is None:
            return cls(np.sort(scores, axis=0).astype(dtype))
        order = np.argsort(codes, kind="stable")
        parts = np.split(scores[order], np.unique(codes[order], return_index=True)[1][1:])
        joined = np.concatenate([np.sort(part, axis=0) for part in parts])
        return cls(joined.astype(dtype), codes[order].astype(dtype))

    def by_group(self) -> list[np.ndarray]:
        """Return the errors of each group, in the order of the codes."""
        if self.codes is None:
            return [self.scores]
        return np.split(self.scores, np.unique(self.codes, return_index=True)[1][1:])


def calibrate(
    loss: Loss, outputs: np.ndarray, y: np.ndarray, codes: np.ndarray | None = None
) -> Calibration:
    """Return the errors of activated outputs with respect to y, both (samples, columns)."""
    xp: Any = np
    centers, spread = loss.centers(outputs, xp=xp)  # type: ignore[arg-type]
    scores: Any = (y[..., None] - centers) / spread
    return Calibration.sort(scores, codes, outputs.dtype)


def calibrated_quantiles(
    loss: Loss,
    outputs: Any,
    levels: Sequence[float],
    calibration: Calibration | None,
    put: Callable[[np.ndarray], Any],
    *,
    groups: Groups | None = None,
    xp: Namespace,
) -> Any:
    r"""Return quantiles, (samples, targets, levels), for activated outputs; calibrate if possible.

    The calibrated quantile :math:`q` is the network's quantile plus the quantile :math:`q` of the
    network's errors on the n calibration samples, at position :math:`q\,(n + 1)`. A new error is
    equally likely to have each of the n + 1 ranks among these errors. A fraction :math:`q` of new
    errors is therefore below that position, even if the network's quantiles are wrong. If two
    quantiles would cross, the upper quantile is raised. ``put`` returns a host array in the dtype
    and on the device of the outputs. With ``groups``, each row gets the errors of its group, so the
    coverage holds in each group (Vovk, Gammerman, Shafer, "Algorithmic learning in a random world",
    2005, section 4.5: Mondrian predictors).

    Romano, Patterson, Candès, "Conformalized quantile regression" (2019), arXiv:1905.03222, theorem
    2; Papadopoulos, Proedrou, Vovk, Gammerman, "Inductive confidence machines for regression"
    (2002), for errors in units of their expected size.
    """
    if calibration is None:
        return loss.quantiles(outputs, levels, xp=xp)
    scores = calibration.by_group() if groups is not None else [calibration.scores]
    if groups is not None:
        for level in levels:
            groups.check([*map(len, scores)], least_samples(level), f"the quantile {level:g}")
    else:
        check_levels(levels, len(scores[0]))
    centers, spread = loss.centers(outputs, xp=xp)
    kinds = [0] * len(levels)
    if scores[0].shape[-1] > 1:
        loss.quantiles(outputs, levels, xp=xp)  # Raises an error if a level is invalid.
        kinds = [int(np.argmin(np.abs(np.subtract(loss.levels, level)))) for level in levels]
    size = spread if isinstance(spread, float) else spread[..., 0]
    found = []
    for kind, level in zip(kinds, levels, strict=True):
        errors = [np.quantile(s[..., kind], level, axis=0, method="weibull") for s in scores]
        error = put(np.stack(errors).astype(scores[0].dtype))  # (groups, targets)
        error = error if groups is None else groups.pick(error, put, xp=xp)
        found.append(centers[..., kind] + size * error)
    order = sorted(range(len(levels)), key=levels.__getitem__)
    for low, high in pairwise(order):
        found[high] = xp.maximum(found[low], found[high])
    return xp.stack(found, axis=-1)


def pooled_errors(states: Sequence[Any]) -> Calibration | None:
    """Return the held-out errors of all networks, or None if a network has none.

    A network's held-out samples are often too few for its extreme quantiles.
    """
    found = [state.calibration for state in states]
    if any(calibration is None for calibration in found):
        return None
    # After `pool_errors`, all networks have the same errors, in arrays that may be copies.
    if all(np.array_equal(calibration.scores, found[0].scores) for calibration in found):
        return found[0]
    scores = np.concatenate([calibration.scores for calibration in found])
    is_grouped = found[0].codes is not None
    codes = np.concatenate([calibration.codes for calibration in found]) if is_grouped else None
    pooled = Calibration.sort(scores, codes, scores.dtype)
    parts = [_thin(part) for part in pooled.by_group()]
    if is_grouped:
        codes = np.repeat(np.unique(pooled.codes), [*map(len, parts)])
    return Calibration(np.concatenate(parts), codes)


def _thin(scores: np.ndarray) -> np.ndarray:
    """Return sorted errors, or the most that are kept of them."""
    if len(scores) <= _MOST_ERRORS:
        return scores
    return scores[np.linspace(0, len(scores) - 1, _MOST_ERRORS).round().astype(np.intp)]


def interval_levels(interval: float, calibration: Calibration | None) -> tuple[float, float]:
    """Return the lower and upper quantile level of an interval; raise ValueError if invalid."""
    check_fraction("interval", interval)
    if calibration is None:
        raise TooFewHeldOutError(
            "`interval` requires errors on held-out samples: fit with "
            "prediction_intervals='held_out' and early_stopping=True or X_val, or call "
            "MLPRegressor.calibrate_intervals(X, y) with samples that were not used in the fit."
        )
    tail = round((1.0 - interval) / 2.0, 9)
    return tail, 1.0 - tail


def check_fraction(name: str, value: float) -> None:
    """Raise ValueError unless a number is between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"`{name}` must be above 0 and below 1, got {value}.")


def least_samples(level: float) -> int:
    """Return the number of samples that a quantile level needs; raise ValueError if invalid."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"`quantiles` must be above 0 and below 1, got {level}.")
    return math.ceil(round(1.0 / min(level, 1.0 - level), 6)) - 1


def check_levels(levels: Sequence[float], n_samples: int) -> None:
    """Raise ValueError if a quantile level is invalid, or needs more samples."""
    for level in levels:
        needed = least_samples(level)
        if n_samples < needed:
            raise TooFewHeldOutError(
                f"The calibration must have at least {needed} samples for the quantile {level:g}, "
                f"got {n_samples}: pass more samples to `calibrate_intervals`, hold out more in "
                "the fit, or choose quantiles closer to 0.5."
            )
