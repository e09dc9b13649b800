"""Plots of an estimator, as methods of its property ``plot``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.metrics import PredictionErrorDisplay

from mlp_xp.backends import to_numpy
from mlp_xp.plotting._calibration import CalibrationDisplay
from mlp_xp.plotting._confusion import ConfusionMatrixDisplay
from mlp_xp.plotting._curves import TrainingCurvesDisplay
from mlp_xp.plotting._images import MistakesDisplay, WeightsDisplay


class Plots:
    """Plots of a fitted estimator: ``model.plot()`` and ``model.plot.confusion(X, y)``.

    Each method calls ``from_estimator`` of a display in `mlp_xp.plotting` or scikit-learn with the
    same parameters.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> model = MLPClassifier(4, max_iter=3, learning_rate="cosine").fit([[0.0], [1.0]], [0, 1])
    >>> list(model.plot().panels)
    ['loss', 'learning rate']
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def __call__(self, X: Any = None, y: Any = None, **settings: Any) -> TrainingCurvesDisplay:
        """Draw the training curves, and results on test data if given."""
        return TrainingCurvesDisplay.from_estimator(self._estimator, X, y, **settings)

    def __repr__(self) -> str:
        return "<plots: plot(), .confusion, .calibration, .mistakes, .predictions, .weights>"

    def confusion(self, X: Any, y: Any, **settings: Any) -> ConfusionMatrixDisplay:
        """Draw a classifier's confusion matrix."""
        return ConfusionMatrixDisplay.from_estimator(self._estimator, X, y, **settings)

    def calibration(self, X: Any, y: Any, **settings: Any) -> CalibrationDisplay:
        """Draw the reliability diagram for a classifier's probabilities."""
        return CalibrationDisplay.from_estimator(self._estimator, X, y, **settings)

    def mistakes(
        self, X: Any, y: Any, *, image_shape: Sequence[int], **settings: Any
    ) -> MistakesDisplay:
        """Draw the most confident mistakes of an image classifier."""
        return MistakesDisplay.from_estimator(
            self._estimator, X, y, image_shape=image_shape, **settings
        )

    def predictions(self, X: Any, y: Any, **settings: Any) -> PredictionErrorDisplay:
        """Draw a regressor's predictions against the true values, as in scikit-learn.

        The default is ``kind="actual_vs_predicted"``.
        """
        predicted = to_numpy(self._estimator.predict(X))
        settings = {"kind": "actual_vs_predicted"} | settings
        return PredictionErrorDisplay.from_predictions(to_numpy(y), predicted, **settings)

    def weights(self, *, image_shape: Sequence[int], **settings: Any) -> WeightsDisplay:
        """Draw the first layer's weights if the samples are images."""
        return WeightsDisplay.from_estimator(self._estimator, image_shape=image_shape, **settings)
