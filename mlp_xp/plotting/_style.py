"""The style of all figures, and a function to write them to files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp._utils.storage.durable import replacing

# Wong, "Color blindness" (2011), doi:10.1038/nmeth.1618; distinct in grayscale too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_LINE = 13.0  # Line height in points.


def new_figure(width: float, height: float) -> Any:
    """Return a figure without a window, with a size in inches."""
    return optional("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def ink() -> str:
    """Return the text color of the current theme, light or dark."""
    return optional("matplotlib").rcParams["text.color"]


def new_axes(ax: Any, n: int, size: tuple[float, float], *, columns: int | None = None) -> Any:
    """Return n axes: the given axes, subdivisions of a given axes, or axes of a new figure.

    Parameters
    ----------
    ax : Axes, sequence of n Axes, or None
    n : int
    size : (width, height)
        Size in inches of each axes in a new figure, which matplotlib's ``pyplot`` shows.
    columns : int, optional
        Number of columns; by default, all axes are in one row.
    """
    if ax is not None and np.ndim(ax):
        if len(ax) != n:
            raise ValueError(f"`ax` must be {n} axes, one, or None, got {len(ax)} axes.")
        return list(ax)
    columns = min(columns or n, n)
    rows = -(-n // columns)
    if ax is None:
        figure = optional("matplotlib.pyplot").figure(
            figsize=(size[0] * columns, size[1] * rows), layout="constrained"
        )
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    elif n == 1:
        return [ax]
    else:
        ax.set_axis_off()
        # If there is no layout engine, leave room for the labels.
        space = 0.6 if ax.figure.get_layout_engine() is None else None
        grid = ax.get_subplotspec().subgridspec(rows, columns, wspace=space)
        axes = [ax.figure.add_subplot(grid[i // columns, i % columns]) for i in range(n)]
    for unused in axes[n:]:
        unused.set_axis_off()
    return axes[:n]


def set_figure_title(figure: Any, ax: Any, title: str) -> None:
    """Write a title over all axes of a figure, unless the caller passed axes."""
    if ax is None:
        figure.suptitle(title, fontsize="medium")


def plain(axes: Any) -> None:
    """Draw a light grid and no frame."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def label_ends(axes: Any, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names next to the ends of lines, without overlaps.

    Parameters
    ----------
    axes : Axes
    labels : sequence of (x, y, text, color)
    """
    axes.get_ylim()  # Read the limits to update them, because the transforms below do not.
    finite = [label for label in labels if np.isfinite(label[1])]
    height = axes.bbox.height / axes.figure.dpi * 72  # Height in points.
    to_points = axes.transData.transform
    places = [to_points((x, y))[1] / axes.figure.dpi * 72 for x, y, _, _ in finite]
    order = np.argsort(places)
    moved = np.asarray(places, dtype=float)
    for lower, upper in pairwise(order):
        moved[upper] = max(moved[upper], moved[lower] + _LINE)
    if len(moved):  # Move all labels down if one exceeds the top.
        top = axes.bbox.y0 / axes.figure.dpi * 72 + height
        moved -= max(0.0, moved.max() - top)
    for (x, y, text, color), place, shifted in zip(finite, places, moved, strict=True):
        axes.annotate(
            text,
            (x, y),
            (6, shifted - place),
            textcoords="offset points",
            va="center",
            color=color,
            annotation_clip=False,
        )


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure to a PNG file atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")
