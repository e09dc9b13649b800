"""Charts of a run, drawn from its record.

python bench/charts.py bench/history/2026-01-02-120000 --out docs
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from contenders import OURS
from report import COLORS, GRAY, Bar, library, rate_panels
from spread import spread
from turns import Result

__all__ = ["draw", "fastest_ways"]

LINES = {
    OURS: COLORS["numpy"],
    "torch": COLORS["torch:cpu"],
    "JAX": COLORS["jax:cpu"],
    "scikit-learn": COLORS["jax:cuda"],
}
# Fractions of a panel: the names beside the ends of lines are at least so far apart.
LEAST_DISTANCE = 0.06


def draw(result: Result, folder: Path) -> None:
    """Draw the charts of a run into a folder."""
    workloads = [workload for workload in result["workloads"].values() if fastest_ways(workload)]
    if workloads:
        epochs_figure(workloads).savefig(folder / "epochs.png", dpi=200)
    if growth := result.get("growth"):
        growth_figure(growth).savefig(folder / "growth.png", dpi=200)


def fastest_ways(workload: Result) -> dict[str, Bar]:
    """Return the fastest way of each library in each precision by name; the tables have all."""
    fastest: dict[tuple[str, str], tuple[str, Bar]] = {}
    for name, run in workload["contenders"].items():
        if "cannot_run" in run:
            continue
        rate = spread([workload["images"] / seconds for seconds in run["seconds"]])
        color = LINES[OURS] if library(name) == "mlp_xp" else GRAY
        key = library(name), run["precision"]
        if key not in fastest or rate.median > fastest[key][1].median:
            fastest[key] = name, Bar(rate.median, color, (rate.low, rate.high))
    return dict(fastest.values())


def epochs_figure(workloads: list[Result]) -> Any:
    """Draw a panel per workload: images per second, the fastest first, and the roofline."""
    panels = {workload["title"]: fastest_ways(workload) for workload in workloads}
    lines = {
        workload["title"]: workload["images"] / workload["floor"]["seconds"]
        for workload in workloads
    }
    note = (
        "The fastest way of each library and precision; blue: mlp_xp. Thin lines: quartiles.\n"
        "Dotted: roofline in float32, where it is near. predict and one-row are predictions."
    )
    return rate_panels(panels, "Images per second", note, lines=lines)


def growth_figure(growth: Result) -> Any:
    """Draw the seconds of an epoch against what grows, both on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True).ravel()
    all_ends = []
    for axis, (title, points) in zip(axes, growth.items(), strict=True):
        ends = {}
        for name, color in LINES.items():
            known = [
                (point["value"], spread(point["contenders"][name]["seconds"]).median)
                for point in points
                if "cannot_run" not in point["contenders"][name]
            ]
            if known:
                axis.loglog(*zip(*known, strict=True), "o-", color=color, markersize=4)
                ends[name] = known[-1][1]
        axis.set_title(f"By {title}", fontsize=9, loc="left")
        axis.set_xticks([point["value"] for point in points])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter("{x:g} s")
        axis.minorticks_off()
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        all_ends.append(ends)
    for axis, ends in zip(axes, all_ends, strict=True):  # Last, since the limits are shared.
        _name_ends(axis, ends)
    figure.suptitle("Seconds of an epoch, both axes logarithmic", fontsize=10)
    return figure


def _name_ends(axis: Any, ends: dict[str, float]) -> None:
    """Write names beside the right ends of lines, none over another."""
    place = -1.0
    for name in sorted(ends, key=ends.__getitem__):
        _, height = axis.transAxes.inverted().transform(axis.transData.transform((1, ends[name])))
        place = max(height, place + LEAST_DISTANCE)
        axis.text(
            1.02, place, name, transform=axis.transAxes, va="center", fontsize=8, color=LINES[name]
        )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of `mlp-xp bench`")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder (%(default)s)")
    args = parser.parse_args(argv)
    draw(json.loads((args.run / "result.json").read_text()), args.out)


if __name__ == "__main__":
    main()
