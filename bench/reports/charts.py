"""Charts of runs, drawn from their records."""

from pathlib import Path
from typing import Any

from bench.reports.bars import COLORS, GRAY, OURS, Bar, rate_panels
from bench.reports.sections import fastest, library
from bench.studies.backends import epochs_of
from bench.suite import contenders
from bench.suite.records import Result
from bench.suite.tables import spread

LINES = {
    contenders.OURS: OURS,
    "torch": COLORS["torch:cpu"],
    "JAX": COLORS["jax:cpu"],
    "scikit-learn": COLORS["jax:cuda"],
}


def draw(result: Result, folder: Path) -> None:
    """Draw the charts of a run into a folder."""
    if workloads := [w for w in result["workloads"].values() if fastest(w)]:
        epochs_figure(workloads).savefig(folder / "epochs.png", dpi=200)
    if growth := result.get("growth"):
        growth_figure(growth).savefig(folder / "growth.png", dpi=200)
    if backends := result.get("backends"):
        backends_figure(backends).savefig(folder / "benchmarks.png", dpi=200)


def epochs_figure(workloads: list[Result]) -> Any:
    """Draw a panel per workload with images per second, fastest first, and the roofline."""
    panels, lines = {}, {}
    for workload in workloads:
        lines[workload["title"]] = workload["images"] / workload["floor"]["seconds"]
        panels[workload["title"]] = {
            name: Bar(rate.median, OURS if library(name) == "mlp_xp" else GRAY, rate[1:])
            for name, rate in fastest(workload).values()
        }
    note = (
        "The fastest way of each library and precision; blue: mlp_xp. Thin lines: quartiles.\n"
        "Dotted: roofline in float32, where it is near. predict and one-row are predictions."
    )
    return rate_panels(panels, "Images per second", note, lines)


def backends_figure(backends: Result) -> Any:
    """Draw images per second of training epochs, one panel per network, with paler bars for
    streamed data."""
    panels: dict[str, dict[str, Bar]] = {}
    for run in epochs_of(backends):
        alpha = 0.55 if run["placement"] == "streamed" else 1.0
        bar = Bar(run["images_per_second"], COLORS.get(run["backend"], GRAY), alpha=alpha)
        panels.setdefault(run["workload"], {})[f"{run['backend']}, {run['placement']}"] = bar
    note = "Resident: all data are on the device; streamed: a batch at a time is sent there."
    return rate_panels(panels, "Images per second of a training epoch", note)


def growth_figure(growth: Result) -> Any:
    """Draw the seconds per epoch against the varied quantity, both on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharey=True).ravel()
    for axis, (title, points) in zip(axes, growth.items(), strict=True):
        for name, color in LINES.items():
            runs = {point["value"]: point["contenders"][name] for point in points}
            known = {
                value: spread(run["seconds"]).median
                for value, run in runs.items()
                if "seconds" in run
            }
            axis.loglog([*known], [*known.values()], "o-", color=color, markersize=4, label=name)
        axis.set_title(f"By {title}", fontsize=9, loc="left")
        axis.set_xticks([point["value"] for point in points])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter("{x:g} s")
        axis.minorticks_off()
        axis.tick_params(labelsize=8)
        _open(axis)
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("Seconds of an epoch, both axes logarithmic", fontsize=10)
    return figure


def speedrun_figure(result: Result) -> Any:
    """Draw loss and accuracy of a recipe over the training time, one line per seed."""
    from matplotlib.figure import Figure

    runs = [*result["runs"].values()]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    # The training accuracy is computed on augmented images.
    curves = (
        (losses, "loss", 1, COLORS["numpy"], None),
        (accuracies, "accuracy", 100, COLORS["numpy"], "training, augmented"),
        (accuracies, "validation_accuracy", 100, COLORS["jax:cpu"], "validation"),
    )
    for run in runs:
        for axes, name, factor, color, label in curves:
            if scores := [factor * score for score in run["history"][name]]:
                axes.plot(run["history"]["seconds"], scores, color=color, alpha=0.7, label=label)
        end, color = (run["seconds"], 100 * run["test_accuracy"]), COLORS["torch:cuda"]
        label = "test, at the end of the command"
        accuracies.plot(*end, "o", color=color, clip_on=False, label=label)
    losses.set_ylabel("training loss")
    accuracies.set_ylabel("accuracy [%]")
    for axes in (losses, accuracies):
        axes.set_xlabel("seconds")
        axes.set_xlim(left=0, right=1.02 * max(run["seconds"] for run in runs))
        _open(axes)
    lines = {line.get_label(): line for line in reversed(accuracies.lines)}
    accuracies.legend(handles=[*reversed(lines.values())], frameon=False)
    figure.suptitle(f"{result['command']}, {len(runs)} seeds")
    return figure


def _open(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
