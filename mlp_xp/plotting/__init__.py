"""Plots of training runs and models, as scikit-learn displays.

Each display has ``from_estimator`` and ``plot(ax=)``, and stores the result in ``axes_`` or ``ax_``
and ``figure_``.
"""

from __future__ import annotations

from mlp_xp.plotting._calibration import CalibrationDisplay
from mlp_xp.plotting._confusion import ConfusionMatrixDisplay
from mlp_xp.plotting._curves import TrainingCurvesDisplay, curve_colors, training_panels
from mlp_xp.plotting._images import (
    MistakesDisplay,
    WeightsDisplay,
    largest_weights,
    surest_mistakes,
)
from mlp_xp.plotting._inline import THEME, in_notebook_colors, inline_svg
from mlp_xp.plotting._plots import Plots
from mlp_xp.plotting._search import SearchDisplay
from mlp_xp.plotting._style import new_figure, save_figure

__all__ = [
    "THEME",
    "CalibrationDisplay",
    "ConfusionMatrixDisplay",
    "MistakesDisplay",
    "Plots",
    "SearchDisplay",
    "TrainingCurvesDisplay",
    "WeightsDisplay",
    "curve_colors",
    "in_notebook_colors",
    "inline_svg",
    "largest_weights",
    "new_figure",
    "save_figure",
    "surest_mistakes",
    "training_panels",
]
