"""The style of all figures, and a function that writes them to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp._utils.storage.durable import replacing

# Wong, "Color blindness" (2011), doi:10.1038/nmeth.1618; also distinct in grayscale.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")


def new_figure(width: float, height: float) -> Any:
    """Return a figure without a window; the size is in inches."""
    return optional("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def ink() -> str:
    """Return the text color of the current theme, light or dark."""
    return optional("matplotlib").rcParams["text.color"]


def new_axes(ax: Any, n: int, size: tuple[float, float], *, columns: int | None = None) -> Any:
    """Return n axes: the given axes, subdivisions of a given axes, or axes of a new figure.

    ``size`` is the width and height in inches of each axes in a new figure, which ``pyplot`` shows.
    By default, all axes are in one row.
    """
    if ax is not None and np.ndim(ax):
        if len(ax) != n:
            raise ValueError(f"`ax` must be {n} axes, a single Axes, or None, got {len(ax)} axes.")
        return list(ax)
    columns = min(columns or n, n)
    rows = -(-n // columns)
    if ax is None:
        figure = optional("matplotlib.pyplot").figure(
            figsize=(size[0] * columns, size[1] * rows), layout="constrained"
        )
        grid = figure.add_gridspec(rows, columns)
    elif n == 1:
        return [ax]
    else:
        ax.set_axis_off()
        # If there is no layout engine, leave room for the labels.
        space = 0.6 if ax.figure.get_layout_engine() is None else None
        figure = ax.figure
        grid = ax.get_subplotspec().subgridspec(rows, columns, wspace=space)
    return [figure.add_subplot(grid[i // columns, i % columns]) for i in range(n)]


def set_figure_title(figure: Any, ax: Any, title: str) -> None:
    """Write a title over all axes of a figure, unless the caller passed axes."""
    if ax is None:
        figure.suptitle(title, fontsize="medium")


def plain(axes: Any) -> None:
    """Draw a light grid and no frame."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure to a PNG file atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")
