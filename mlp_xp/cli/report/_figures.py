"""Curves of one run or of several, as figures of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from mlp_xp.cli.run_folder.history import CURVES
from mlp_xp.plotting import TrainingCurvesDisplay, curve_colors, inline_svg, training_panels

MOST_RUNS = 5  # The most runs in a figure, one per color.


def curve_figures(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], test: Mapping[str, float] | None = None
) -> dict[str, str]:
    """Return figures of loss, scores and learning rate by epoch, by their captions.

    One run has training and validation in a figure, several have a figure for each. ``test`` has
    results on test data by the label of their axis, which are marked.
    """
    panels: dict[str, dict[str, list[Any]]] = {}
    for name, rows in islice(runs.items(), MOST_RUNS):
        for label, curves in training_panels(rows, CURVES).items():
            for curve, values in curves.items():
                if len(runs) == 1:
                    panels.setdefault(label, {})[curve] = values
                else:
                    panels.setdefault(f"{curve} {label}".strip(), {})[name] = values
    drawn, colors = {}, curve_colors(panels if len(runs) == 1 else {"": runs})
    for label, curves in panels.items():
        display = TrainingCurvesDisplay({label: curves}, test=test, colors=colors)
        drawn[f"{label} by epoch"] = svg_of(display, 4.4, 3.0, f"{label} by epoch")
    return drawn


def svg_of(display: Any, width: float, height: float, title: str, **settings: Any) -> str:
    """Return a display as an ``<svg>`` element of a size in inches."""

    def draw(figure: Any) -> None:
        display.plot(ax=figure.subplots(), **settings)

    return inline_svg(draw, width, height, title)
