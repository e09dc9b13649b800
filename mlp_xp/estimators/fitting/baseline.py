"""A check whether a fit is better than a constant prediction, with advice if it is not."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from mlp_xp._utils.sklearn_compat import caller_frame
from mlp_xp._utils.threads import current_worker
from mlp_xp.backends import to_numpy
from mlp_xp.estimators.checks.validation import Sample
from mlp_xp.estimators.settings.config import LBFGS
from mlp_xp.estimators.targets import Targets
from mlp_xp.nn.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    Loss,
    SoftmaxCrossEntropy,
    SquaredError,
)
from mlp_xp.training.data.rows import Shard, take_rows
from mlp_xp.training.loop.fit_loop import FitLoop

USELESS = "The training loss ends above the loss of a constant prediction."
# A fit is useless if its loss, divided by a constant prediction's loss, is above this limit. The
# limit is above 1, since noise and dropout can raise a good fit's loss slightly. The second limit
# is for fits that reached a plateau in a few steps.
_MARGIN, _MARGIN_AT_REST = 1.1, 2.0
# Shorter fits get no warning, since they might still improve.
_EPOCHS, _STEPS = 10, 200
# If a constant prediction's loss is below this, nearly all labels are of one class, so never warn.
_LEAST_ENTROPY = 0.01
_LAST = 11  # Use the best of this many last epochs, since a single epoch may be an outlier.
_ROWS = 1000
# The range of suitable magnitudes of X and y, then a learning rate that is too large for any
# optimizer, and a usual learning rate.
_SMALL, _LARGE, _LARGE_RATE, _USUAL_RATE = 0.03, 30.0, 1.0, 0.001


def constant_loss(
    loss: Loss, targets: Targets, y: np.ndarray, weights: np.ndarray | None
) -> float | None:
    """Return the loss of predicting the weighted mean of y, or the class frequencies.

    The result is in the unit of reported losses, or None if there is no simple formula.
    """
    formula = _FORMULAS.get(type(loss))
    if formula is None:
        return None
    encoded = targets.encode(y, "float64")
    if encoded.ndim == 1:
        counts = np.bincount(encoded, weights, targets.n_outputs)
        mean = counts / counts.sum()
    else:
        mean = np.average(encoded, axis=0, weights=weights)
    terms = formula(loss, encoded, mean, weights)
    return float(loss.reported(float(np.sum(terms)), len(mean)))


def _spread(loss: Any, encoded: np.ndarray, mean: np.ndarray, weights: Any) -> Any:
    terms, _ = loss.of_error(mean - encoded, xp=np)
    return np.average(terms, axis=0, weights=weights)


def _entropy(loss: Any, _: np.ndarray, mean: np.ndarray, weights: Any) -> Any:
    frequency = (1.0 - loss.label_smoothing) * mean + loss.label_smoothing / len(mean)
    return _surprise(frequency)


def _entropies(loss: Any, _: np.ndarray, mean: np.ndarray, weights: Any) -> Any:
    frequency = (1.0 - loss.label_smoothing) * mean + loss.label_smoothing / 2
    return _surprise(frequency) + _surprise(1.0 - frequency)


def _surprise(frequency: np.ndarray) -> np.ndarray:
    return -frequency * np.log(np.where(frequency > 0.0, frequency, 1.0))


_FORMULAS: dict[type[Loss], Callable[..., Any]] = {
    SquaredError: _spread,
    AbsoluteError: _spread,
    SoftmaxCrossEntropy: _entropy,
    BinaryCrossEntropy: _entropies,
}


def warn_if_useless(model: Any, loop: FitLoop, targets: Targets, sample: Sample) -> None:
    """Warn, with advice, if the training loss ends above a constant prediction's loss.

    Never warn after short fits, or in a search or cross-validation, which tries bad candidates on
    purpose.
    """
    history, plateau = loop.history, loop.plateau
    n_epochs = history.n_epochs
    is_long = model.solver == LBFGS or loop.trainer.n_steps >= _STEPS
    is_at_rest = plateau.count > plateau.patience
    if current_worker() is not None or n_epochs < _EPOCHS or not (is_long or is_at_rest):
        return
    losses = history.losses[-min(n_epochs, _LAST) :]
    constant = constant_loss(loop.trainer.rules.loss, targets, sample.y, sample.weights)
    least = 0.0 if targets.classes is None else _LEAST_ENTROPY
    margin = _MARGIN if is_long else _MARGIN_AT_REST
    if constant is None or constant <= least or not min(losses) > margin * constant:
        return
    if any(frame.f_code.co_name == "_fit_and_score" for frame, _ in traceback.walk_stack(None)):
        return
    cause, cure = _cause(model, targets, sample, is_rising=losses[-1] > history.losses[-n_epochs])
    frame = caller_frame()
    warnings.warn_explicit(
        f"{USELESS} The likeliest cause is {cause}: type {cure}.",
        RuntimeWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
    )


def _cause(model: Any, targets: Targets, sample: Sample, *, is_rising: bool) -> tuple[str, str]:
    """Return the most likely cause, and the parameters to set."""
    x, y, _ = sample
    if model.solver != LBFGS and model.learning_rate_init >= _LARGE_RATE:
        return "the learning rate", f"learning_rate_init={_USUAL_RATE}"
    scales = []
    if targets.classes is None:
        size = np.sqrt(np.mean(np.square(targets.encode(y, "float64"))))
        if not _SMALL < size < _LARGE:
            scales.append(("y", "target_scaling='standardize'"))
    if model.input_scaling is None:
        rows = take_rows(x.mine if isinstance(x, Shard) else x, slice(0, _ROWS))
        values = rows.data if sparse.issparse(rows) else to_numpy(rows)
        if values.size and not _SMALL < np.max(np.abs(values.astype(np.float64))) < _LARGE:
            scales.append(("X", "input_scaling='standardize'"))
    if scales:
        names, cures = zip(*scales, strict=True)
        return f"the scale of {' and of '.join(names)}", ", ".join(cures)
    cause, name, value = cause_of_settings(model, is_rising=is_rising)
    return cause, f"{name}={value:g}"


def cause_of_settings(model: Any, *, is_rising: bool) -> tuple[str, str, float]:
    """Return the most likely cause of a useless fit, and the parameter and value to set."""
    rate = None if model.solver == LBFGS else model.learning_rate_init
    if rate is not None and (is_rising or rate >= _LARGE_RATE):
        usual = _USUAL_RATE if rate > 10 * _USUAL_RATE else rate / 10
        return "the learning rate", "learning_rate_init", usual
    if rate is not None and rate < 10 * _USUAL_RATE:
        return "a small learning rate", "learning_rate_init", 10 * rate
    return "a short fit", "max_iter", 10 * model.max_iter
