"""Sets of classes that contain the correct class with a given probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Namespace
from mlp_xp.estimators.fitted.calibration import Calibration, check_fraction
from mlp_xp.estimators.fitted.groups import Groups, TooFewHeldOutError

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
    numpy: Any = np
    penalties = rank_penalty(numpy.arange(ranked.shape[1]), np.asarray, xp=numpy)
    scores = np.empty_like(ranked)
    np.put_along_axis(scores, order, np.cumsum(ranked, axis=1) - ranked / 2 + penalties, axis=1)
    return scores


def rank_penalty(ranks: Any, put: Callable[[np.ndarray], Any], *, xp: Namespace) -> Any:
    """Return the penalty on the ranks of classes, from 0, in the library of the ranks."""
    beyond = xp.maximum(ranks - put(np.asarray(_FREE - 1.0)), put(np.zeros(())))
    return put(np.asarray(_PENALTY)) * beyond


def calibrate_sets(
    probabilities: np.ndarray, classes: np.ndarray, codes: np.ndarray | None
) -> Calibration:
    """Return the sorted scores of the correct classes on held-out samples, by group."""
    scores = np.take_along_axis(set_scores(probabilities), classes.reshape(-1, 1), axis=1)
    return Calibration.sort(scores[..., None], codes, probabilities.dtype)


def prediction_sets(
    probabilities: np.ndarray,
    coverage: float,
    calibration: Calibration | None,
    groups: Groups | None = None,
) -> np.ndarray:
    """Return which classes are in the set of each sample, a boolean (samples, classes) array."""
    limit = set_limits(coverage, calibration, groups)
    limit = limit if groups is None else groups.is_in.astype(limit.dtype) @ limit
    found = set_scores(probabilities)
    return (found <= limit) | (found == found.min(axis=1, keepdims=True))


def set_limits(
    coverage: float, calibration: Calibration | None, groups: Groups | None
) -> np.ndarray:
    """Return the largest score of a class in a set, (groups, 1); raise ValueError if unknown."""
    check_fraction("coverage", coverage)
    if calibration is None:
        raise TooFewHeldOutError(
            "`predict_set` requires held-out samples: fit with prediction_sets='held_out' and "
            "early_stopping=True or X_val."
        )
    scores = calibration.by_group() if groups is not None else [calibration.scores]
    needed = math.ceil(round(coverage / (1.0 - coverage), 6))
    if groups is not None:
        groups.check([*map(len, scores)], needed, f"coverage={coverage:g}")
    elif len(scores[0]) < needed:
        raise TooFewHeldOutError(
            f"`coverage={coverage:g}` must have at least {needed} held-out samples, got "
            f"{len(scores[0])}: hold out more, e.g. with validation_fraction=0.3, or choose a "
            "lower coverage."
        )
    limits = [np.quantile(part, coverage, axis=0, method="weibull") for part in scores]
    return np.concatenate(limits)
