"""Charts of a run."""

from __future__ import annotations

from pathlib import Path

from contenders import OURS
from report import COLORS, GRAY, seconds
from spread import spread
from turns import Result

__all__ = ["draw"]

LINES = {
    OURS: COLORS["numpy"],
    "torch": COLORS["torch:cpu"],
    "JAX": COLORS["jax:cpu"],
    "scikit-learn": COLORS["jax:cuda"],
}


def draw(result: Result, folder: Path) -> None:
    """Draw the charts of a run into a folder."""
    if result["workloads"]:
        epochs_figure(list(result["workloads"].values())).savefig(folder / "epochs.png", dpi=150)
    if growth := result.get("growth"):
        growth_figure(growth).savefig(folder / "growth.png", dpi=150)


def epochs_figure(workloads: list[Result]):
    """Draw a panel per workload: a bar per contender with quartiles, and the roofline."""
    from matplotlib.figure import Figure

    ran = [
        {name: run for name, run in workload["contenders"].items() if "cannot_run" not in run}
        for workload in workloads
    ]
    n_rows = -(-len(workloads) // 2)
    height = 1.1 + 0.24 * max(map(len, ran))
    figure = Figure(figsize=(11, n_rows * height + 0.3), layout="constrained")
    axes = figure.subplots(n_rows, 2, squeeze=False).ravel()
    for axis, workload, contenders in zip(axes, workloads, ran, strict=False):
        spreads = [spread(run["seconds"]) for run in contenders.values()]
        medians = [own.median for own in spreads]
        colors = [LINES[OURS] if name.startswith("mlp_xp") else GRAY for name in contenders]
        errors = [
            [own.median - own.low for own in spreads],
            [own.high - own.median for own in spreads],
        ]
        bars = axis.barh(list(contenders), medians, color=colors, xerr=errors, ecolor="black")
        axis.bar_label(bars, [seconds(median) for median in medians], padding=4, fontsize=8)
        axis.axvline(workload["floor"]["seconds"], color="black", linestyle=":")
        axis.set_title(f"{workload['title']}\ndotted: roofline", fontsize=9, loc="left")
        axis.invert_yaxis()
        axis.tick_params(axis="y", length=0, labelsize=8)
        axis.locator_params(axis="x", nbins=5)  # More labels would overlap.
        axis.set_xlabel("seconds per epoch" if workload["kind"] == "train" else "seconds per call")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(workloads) :]:
        axis.set_axis_off()
    return figure


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
