"""Figures in one style, and bar charts with labeled bars, fastest first."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Okabe and Ito's palette, safe for color blindness.
COLORS = {
    "numpy": "#0072B2",
    "torch:cpu": "#E69F00",
    "jax:cpu": "#009E73",
    "cupy": "#56B4E9",
    "torch:cuda": "#D55E00",
    "jax:cuda": "#CC79A7",
}
OURS, GRAY = COLORS["numpy"], "#999999"


class Bar(NamedTuple):
    """A bar of a chart: a rate, its color, and quartiles if they are drawn."""

    median: float
    color: str
    quartiles: tuple[float, float] | None = None
    alpha: float = 1.0


def new_figure(width: float, height: float, *shape: int, **options: Any) -> tuple[Any, Any]:
    """Return a figure and its axes, which have no lines at the top and right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(*shape, **options)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_bars(axis: Any, unsorted: Mapping[str, Bar]) -> list[Any]:
    """Draw bars without an axis of rates, fastest first; return the texts of their rates."""
    bars, texts = sorted(unsorted.items(), key=lambda item: -item[1].median), []
    for place, (_, bar) in enumerate(bars):
        low, high = bar.quartiles or (bar.median, bar.median)
        drawn = axis.barh(place, bar.median, 0.7, color=bar.color, alpha=bar.alpha)
        axis.plot([low, high], [place, place], color="0.2", linewidth=1)
        texts += axis.bar_label(drawn, [f"{bar.median:,.0f}"], padding=4)
        texts[-1].xy = max(bar.median, high), place
    axis.set_xlim(0, 1.28 * axis.dataLim.xmax)  # Leave space for the labels.
    axis.set_yticks(range(len(bars)), [label for label, _ in bars])
    axis.invert_yaxis()
    axis.spines["bottom"].set_visible(False)
    axis.set_xticks([])
    axis.tick_params(axis="y", length=0)
    return texts


def rate_panels(
    panels: Mapping[str, Mapping[str, Bar]],
    title: str,
    note: str = "",
    lines: Mapping[str, float] | None = None,
) -> Any:
    """Plot rates as bars, two panels per row; show only dotted lines that are close to bars.

    Each panel has its own scale, because rates differ by a factor of a thousand.
    """
    lengths = [len(bars) for bars in panels.values()]
    heights = [max(lengths[i : i + 2]) for i in range(0, len(lengths), 2)]
    longest = max(len(label) for bars in panels.values() for label in bars)
    height, ratios = 0.7 + sum(0.5 + 0.2 * n for n in heights), [2 + n for n in heights]
    figure, grid = new_figure(7.5, height, len(heights), 2, squeeze=False, height_ratios=ratios)
    for number, (name, bars) in enumerate(panels.items()):
        axis = grid[divmod(number, 2)]
        for text in draw_bars(axis, bars):
            text.set(fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        if lines and lines[name] < axis.get_xlim()[1]:
            axis.axvline(lines[name], color="black", linestyle=":", linewidth=1)
        axis.set_title(name, fontsize=9, loc="left", x=-0.02 * longest)
        axis.set_ylim(heights[number // 2] - 0.5, -0.5)
        axis.spines["left"].set_bounds(-0.5, len(bars) - 0.5)
        axis.tick_params(axis="y", labelsize=8)
    if len(panels) % 2:
        grid[-1, -1].set_axis_off()
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(note, fontsize=8)
    return figure
