"""Charts of runs, drawn from their records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.reports.sections import library
from bench.studies.backends import epochs_of
from bench.suite.contenders import OURS
from bench.suite.records import Result
from bench.suite.spread import spread

# Okabe and Ito's palette, safe for color blindness.
COLORS = {
    "numpy": "#0072B2",
    "torch:cpu": "#E69F00",
    "jax:cpu": "#009E73",
    "cupy": "#56B4E9",
    "torch:cuda": "#D55E00",
    "jax:cuda": "#CC79A7",
}
GRAY = "#999999"
LINES = {
    OURS: COLORS["numpy"],
    "torch": COLORS["torch:cpu"],
    "JAX": COLORS["jax:cpu"],
    "scikit-learn": COLORS["jax:cuda"],
}


class Bar(NamedTuple):
    """A bar of a chart: images per second, its color, and quartiles if they are drawn."""

    median: float
    color: str
    quartiles: tuple[float, float] | None = None
    alpha: float = 1.0


def draw(result: Result, folder: Path) -> None:
    """Draw the charts of a run into a folder."""
    runs = result["workloads"].values()
    if workloads := [workload for workload in runs if fastest_ways(workload)]:
        epochs_figure(workloads).savefig(folder / "epochs.png", dpi=200)
    if growth := result.get("growth"):
        growth_figure(growth).savefig(folder / "growth.png", dpi=200)
    if backends := result.get("backends"):
        backends_figure(backends).savefig(folder / "benchmarks.png", dpi=200)


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


def backends_figure(backends: Result) -> Any:
    """Draw images per second of epochs: a panel a network, paler bars for streamed data."""
    panels: dict[str, dict[str, Bar]] = {}
    for run in epochs_of(backends):
        alpha = 0.55 if run["placement"] == "streamed" else 1.0
        bar = Bar(run["images_per_second"], COLORS.get(run["backend"], GRAY), alpha=alpha)
        panels.setdefault(run["workload"], {})[f"{run['backend']}, {run['placement']}"] = bar
    note = "Resident: all data are on the device; streamed: a batch at a time is sent there."
    return rate_panels(panels, "Images per second of a training epoch", note)


def rate_panels(
    panels: Mapping[str, Mapping[str, Bar]],
    title: str,
    note: str,
    *,
    lines: Mapping[str, float] | None = None,
) -> Any:
    """Draw bars with their numbers, the fastest first, two panels in a row.

    The figure is as wide as a page, so that its text is legible there. The panels differ by a
    factor of a thousand, so each has its own scale; a dotted line is left out where it is far away.
    """
    from matplotlib.figure import Figure

    lengths = [len(bars) for bars in panels.values()]
    heights = [max(lengths[i : i + 2]) for i in range(0, len(lengths), 2)]
    longest = max(len(label) for bars in panels.values() for label in bars)
    height = 0.7 + sum(0.5 + 0.2 * n for n in heights)
    figure = Figure(figsize=(7.5, height), layout="constrained")
    ratios = [2 + n for n in heights]
    axes = figure.subplots(len(heights), 2, squeeze=False, height_ratios=ratios).ravel()
    for number, (name, unsorted) in enumerate(panels.items()):
        axis, bars = axes[number], sorted(unsorted.items(), key=lambda item: -item[1].median)
        for place, (_, bar) in enumerate(bars):
            low, high = bar.quartiles or (bar.median, bar.median)
            axis.barh(place, bar.median, 0.7, color=bar.color, alpha=bar.alpha)
            axis.plot([low, high], [place, place], color="0.2", linewidth=1)
            axis.annotate(
                f"{bar.median:,.0f}",
                (max(bar.median, high), place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
        right = 1.28 * axis.dataLim.xmax  # Room for the number.
        axis.set_xlim(0, right)
        if lines and lines[name] < right:
            axis.axvline(lines[name], color="black", linestyle=":", linewidth=1)
        axis.set_title(name, fontsize=9, loc="left", x=-0.02 * longest)
        axis.set_yticks(range(len(bars)), [label for label, _ in bars])
        axis.set_ylim(heights[number // 2] - 0.5, -0.5)
        axis.spines["left"].set_bounds(-0.5, len(bars) - 0.5)
        axis.set_xticks([])
        axis.tick_params(axis="y", length=0, labelsize=8)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(note, fontsize=8)
    return figure


def growth_figure(growth: Result) -> Any:
    """Draw the seconds of an epoch against what grows, both on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True).ravel()
    for axis, (title, points) in zip(axes, growth.items(), strict=True):
        for name, color in LINES.items():
            runs = {point["value"]: point["contenders"][name] for point in points}
            known = {value: run["seconds"] for value, run in runs.items() if "seconds" in run}
            medians = [spread(taken).median for taken in known.values()]
            axis.loglog([*known], medians, "o-", color=color, markersize=4, label=name)
        axis.set_title(f"By {title}", fontsize=9, loc="left")
        axis.set_xticks([point["value"] for point in points])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter("{x:g} s")
        axis.minorticks_off()
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("Seconds of an epoch, both axes logarithmic", fontsize=10)
    return figure


def speedrun_figure(result: Result) -> Any:
    """Draw loss and accuracy of a recipe against the seconds of training, a line a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for number, run in enumerate(result["runs"].values()):
        label = (lambda text: text) if number == 0 else lambda _: None
        seconds, history = run["history"]["seconds"], run["history"]
        losses.plot(seconds, history["loss"], color=COLORS["numpy"], alpha=0.7)
        # The first is of pictures as they were changed for the training.
        for name, color, what in (
            ("accuracy", COLORS["numpy"], "training, augmented"),
            ("validation_accuracy", COLORS["jax:cpu"], "validation"),
        ):
            if scores := [100 * score for score in history[name]]:
                accuracies.plot(seconds, scores, color=color, alpha=0.7, label=label(what))
        end = run["seconds"], 100 * run["test_accuracy"]
        test = label("test, at the end of the command")
        accuracies.plot(*end, "o", color=COLORS["torch:cuda"], clip_on=False, label=test)
    losses.set_ylabel("training loss")
    accuracies.set_ylabel("accuracy [%]")
    for axes in (losses, accuracies):
        axes.set_xlabel("seconds")
        axes.set_xlim(left=0, right=1.02 * max(run["seconds"] for run in result["runs"].values()))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    accuracies.legend(frameon=False)
    figure.suptitle(f"{result['command']}, {len(result['runs'])} seeds")
    return figure
