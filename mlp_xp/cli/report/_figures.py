"""Curves of one run or of several, as figures of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from mlp_xp.plotting import TrainingCurvesDisplay, curve_colors, inline_svg, training_panels

__all__ = ["MOST_RUNS", "curve_figures"]

_COLUMNS = {
    "loss": {"training": "loss", "validation": "validation_loss"},
    "accuracy [%]": {"training": "accuracy", "validation": "validation_accuracy"},
    "R²": {"validation": "validation_r2"},
    "learning rate": {"": "learning_rate"},
}
MOST_RUNS = 5  # Runs in a figure: there are no more colors.


def curve_figures(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], test: Mapping[str, float] | None = None
) -> dict[str, str]:
    """Return figures of loss, scores and learning rate by epoch, by their captions.

    Parameters
    ----------
    runs : mapping of str to sequence of mapping
        From the name of a run to its rows. One run has its training and validation in a figure;
        several have one figure for each of the two.
    test : mapping of str to float, optional
        Results on test data by the label of their axis, which are marked.
    """
    panels: dict[str, dict[str, list[Any]]] = {}
    for name, rows in islice(runs.items(), MOST_RUNS):
        known = {
            label: {curve: column for curve, column in curves.items() if rows and column in rows[0]}
            for label, curves in _COLUMNS.items()
        }
        for label, curves in training_panels(rows, known).items():
            for curve, values in curves.items():
                if len(runs) == 1:
                    panels.setdefault(label, {})[curve] = values
                else:
                    panels.setdefault(f"{curve} {label}".strip(), {})[name] = values
    drawn, colors = {}, curve_colors(panels if len(runs) == 1 else {"": runs})
    for label, curves in panels.items():
        display = TrainingCurvesDisplay({label: curves}, test=test, colors=colors)
        drawn[f"{label} by epoch"] = inline_svg(
            partial(_draw, display), 4.4, 3.0, f"{label} by epoch"
        )
    return drawn


def _draw(display: TrainingCurvesDisplay, figure: Any) -> None:
    display.plot(ax=figure.subplots())
