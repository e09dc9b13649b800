"""Sets of classes that contain the correct class with a given probability."""

from __future__ import annotations

import math

import numpy as np

from mlp_xp.estimators.fitted.calibration import Calibration, check_fraction

ONE_CLASS = "binary", "multiclass"  # The kinds of targets for which sets are predicted.
_PENALTY = 0.01  # For each class after the first `_FREE`, so that sets are seldom large.
_FREE = 5


def set_scores(probabilities: np.ndarray) -> np.ndarray:
    r"""Return the score of each class, (samples, classes): lower scores enter a set first.

    The score is the probability of all likelier classes, plus half of the class's probability, plus
    a penalty on its rank. Half stands for the random number of the original, so that the same
    sample always has the same set. Angelopoulos, Bates, Malik, Jordan, "Uncertainty sets for image
    classifiers using conformal prediction" (2021), arXiv:2009.14193, algorithm 2 (RAPS).
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
    penalties = _PENALTY * np.maximum(np.arange(ranked.shape[1]) + 1 - _FREE, 0)
    scores = np.empty_like(ranked)
    np.put_along_axis(scores, order, np.cumsum(ranked, axis=1) - ranked / 2 + penalties, axis=1)
    return scores


def calibrate_sets(probabilities: np.ndarray, codes: np.ndarray) -> Calibration:
    """Return the sorted scores of the correct classes on held-out samples."""
    scores = np.take_along_axis(set_scores(probabilities), codes.reshape(-1, 1), axis=1)
    return Calibration(np.sort(scores, axis=0)[..., None].astype(probabilities.dtype))


def prediction_sets(
    probabilities: np.ndarray, coverage: float, calibration: Calibration | None
) -> np.ndarray:
    """Return which classes are in the set of each sample, a boolean (samples, classes) array."""
    check_fraction("coverage", coverage)
    if calibration is None:
        raise ValueError(
            "`predict_set` requires held-out samples: fit with prediction_sets='held_out' and "
            "early_stopping=True or X_val."
        )
    scores = calibration.scores[:, 0, 0]
    needed = math.ceil(round(coverage / (1.0 - coverage), 6))
    if len(scores) < needed:
        raise ValueError(
            f"`coverage={coverage:g}` must have at least {needed} held-out samples, got "
            f"{len(scores)}: hold out more, e.g. with validation_fraction=0.3, or choose a lower "
            "coverage."
        )
    found = set_scores(probabilities)
    limit = np.quantile(scores, coverage, method="weibull")
    return (found <= limit) | (found == found.min(axis=1, keepdims=True))
