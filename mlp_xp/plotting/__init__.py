"""Figures of trainings and classifiers, by scikit-learn's convention of displays.

Each display has ``from_estimator`` and ``plot(ax=)``, and keeps what it drew in ``axes_`` or
``ax_`` and ``figure_``.
"""

from __future__ import annotations

from sklearn.calibration import CalibrationDisplay

from mlp_xp.plotting._confusion import ConfusionMatrixDisplay
from mlp_xp.plotting._curves import TrainingCurvesDisplay, training_panels
from mlp_xp.plotting._pictures import MistakesDisplay, WeightsDisplay
from mlp_xp.plotting._style import new_figure, save_figure

__all__ = [
    "CalibrationDisplay",
    "ConfusionMatrixDisplay",
    "MistakesDisplay",
    "TrainingCurvesDisplay",
    "WeightsDisplay",
    "new_figure",
    "save_figure",
    "training_panels",
]
