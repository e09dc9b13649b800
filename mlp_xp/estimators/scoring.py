"""Scores of predictions that have been made already."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.metaestimators import available_if

__all__ = ["Predictions"]


def _of_classifier(predictions: Any) -> bool:
    return bool(is_classifier(predictions._model))


class Predictions:
    """An estimator whose predictions for some samples are known, as scorers of scikit-learn take.

    Whatever it is asked to predict for, it gives these; everything else is the estimator's.

    Parameters
    ----------
    model : estimator
    outputs : (samples, outputs) NumPy array
        After the output activation.
    """

    def __init__(self, model: Any, outputs: np.ndarray) -> None:
        self._model = model
        self._outputs = outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, X: Any = None) -> np.ndarray:
        """Give labels or values."""
        return self._model._decode(self._outputs)

    @available_if(_of_classifier)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any = None) -> np.ndarray:
        """Give probabilities."""
        return self._model._probabilities(self._outputs, xp=np)

    @available_if(_of_classifier)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any = None) -> np.ndarray:
        """Give logarithms of probabilities."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba())

    def score(
        self,
        scorer: Callable[..., float],
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
    ) -> float:
        """Give what a scorer makes of the predictions; weights only to one that takes them."""
        if sample_weight is None or not _takes_weights(scorer):
            return float(scorer(self, X, y))
        return float(scorer(self, X, y, sample_weight=sample_weight))


def _takes_weights(scorer: Any) -> bool:
    """Tell whether a scorer, or the metric inside one of scikit-learn's, has sample weights."""
    return "sample_weight" in signature(getattr(scorer, "_score_func", scorer)).parameters
