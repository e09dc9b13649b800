"""Charts of a run."""

from __future__ import annotations

from pathlib import Path

from contenders import OURS
from report import COLORS, GRAY, seconds
from spread import Spread, spread
from turns import Result

__all__ = ["draw"]

MOST_BARS = 9
LINES = {
    OURS: COLORS["numpy"],
    "torch": COLORS["torch:cpu"],
    "JAX": COLORS["jax:cpu"],
    "scikit-learn": COLORS["jax:cuda"],
}


def draw(result: Result, folder: Path) -> None:
    """Draw the charts of a run into a folder."""
    workloads = [workload for workload in result["workloads"].values() if _ran(workload)]
    if workloads:
        epochs_figure(workloads).savefig(folder / "epochs.png", dpi=150)
    if growth := result.get("growth"):
        growth_figure(growth).savefig(folder / "growth.png", dpi=150)


def epochs_figure(workloads: list[Result]):
    """Draw a panel per workload: times relative to ours, the fastest first, and the roofline.

    One unit serves all: how many times as long as ours. The bar of ours has its time.
    """
    from matplotlib.figure import Figure

    n_rows = -(-len(workloads) // 2)
    figure = Figure(figsize=(10, 2.5 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, 2, squeeze=False).ravel()
    for axis, workload in zip(axes, workloads, strict=False):
        _draw_workload(axis, workload, _ran(workload))
    for axis in axes[len(workloads) :]:
        axis.set_axis_off()
    return figure


def _ran(workload: Result) -> dict[str, Spread]:
    """Return the times of the contenders that ran to the end."""
    return {
        name: spread(run["seconds"])
        for name, run in workload["contenders"].items()
        if "cannot_run" not in run
    }


def _draw_workload(axis, workload: Result, ran: dict) -> None:
    """Draw the contenders of a workload, in the order of their times."""
    base = ran[OURS].median if OURS in ran else min(own.median for own in ran.values())
    ranking = sorted(ran, key=lambda name: ran[name].median)
    # The tables have them all.
    n_shown = max(MOST_BARS, 1 + ranking.index(OURS)) if OURS in ran else MOST_BARS
    ranking = ranking[:n_shown]
    shares = [ran[name].median / base for name in ranking]
    errors = [
        [(ran[name].median - ran[name].low) / base for name in ranking],
        [(ran[name].high - ran[name].median) / base for name in ranking],
    ]
    colors = [LINES[OURS] if name.startswith("mlp_xp") else GRAY for name in ranking]
    bars = axis.barh(ranking, shares, color=colors, xerr=errors, ecolor="0.3", height=0.7)
    labels = [
        f"{share:.2f}" + (f"  = {seconds(base)}" if name == OURS else "")
        for name, share in zip(ranking, shares, strict=True)
    ]
    axis.bar_label(bars, labels, padding=6, fontsize=8)
    axis.axvline(workload["floor"]["seconds"] / base, color="black", linestyle=":")
    noun = "an epoch" if workload["kind"] == "train" else "a call"
    axis.set_title(workload["title"], fontsize=9, loc="left")
    shown = f"the {len(ranking)} fastest" if len(ranking) < len(ran) else "all"
    axis.set_xlabel(f"time of {noun}, ours = 1; {shown}; dotted: roofline", fontsize=8)
    axis.invert_yaxis()
    axis.tick_params(axis="both", length=0, labelsize=8)
    axis.locator_params(axis="x", nbins=5)  # More labels would overlap.
    axis.margins(x=0.2)
    axis.spines[["top", "right"]].set_visible(False)


def growth_figure(growth: Result):
    """Draw the seconds of an epoch against what grows, both on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True).ravel()
    for axis, (title, points) in zip(axes, growth.items(), strict=True):
        for name, color in LINES.items():
            known = [
                (point["value"], spread(point["contenders"][name]["seconds"]).median)
                for point in points
                if "cannot_run" not in point["contenders"][name]
            ]
            if known:
                axis.loglog(*zip(*known, strict=True), "o-", color=color, label=name)
        axis.set_xticks([point["value"] for point in points])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.minorticks_off()
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    for axis in axes[::2]:
        axis.set_ylabel("seconds per epoch")
    axes[0].legend(frameon=False)
    return figure
