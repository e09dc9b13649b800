"""The pictures of the README, from the newest records, which their metadata name.

They are narrow enough for a phone; on a wide page they stand side by side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.reports.charts import COLORS, GRAY
from bench.reports.sections import LIBRARIES, library
from bench.suite.records import HISTORY, ROOT, Result, newest
from bench.suite.spread import Spread, spread

PICTURES = ("readme-speed.svg", "readme-accuracy.svg")
WORKLOAD = "medium"
RECIPES = ("one-minute", "five-minutes", "ten-minutes", "hour")
OURS, DEFAULT = COLORS["numpy"], COLORS["torch:cuda"]
TEXT = "#797979"  # The gray with the same contrast on white and on GitHub's dark page, 4.3 to 1.
STYLE = {
    "svg.fonttype": "none",  # Text stays text: small, sharp, and readable by a test.
    "svg.hashsalt": "readme",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}


def sources() -> list[Path]:
    """Return the records that are drawn: a run of the suite, then the newest of each recipe."""
    suite, _ = newest("workloads", WORKLOAD)
    return [suite, *(max(HISTORY.glob(f"*/speedrun-{recipe}.json")) for recipe in RECIPES)]


def fastest(contenders: Result, n_images: int) -> dict[str, Spread]:
    """Return images per second of each library's fastest way in float32, the fastest first."""
    rates = {}
    for wanted in LIBRARIES:
        ran = {
            name: spread([n_images / seconds for seconds in run["seconds"]])
            for name, run in contenders.items()
            if library(name) == wanted and "cannot_run" not in run and run["precision"] == "float32"
        }
        if ran:
            name = max(ran, key=lambda name: ran[name].median)
            rates[name] = ran[name]
    return dict(sorted(rates.items(), key=lambda item: -item[1].median))


def draw(records: Sequence[Path], folder: Path) -> None:
    """Draw the records that `sources` returns as `PICTURES` of a folder."""
    import matplotlib

    suite, *runs = [json.loads(file.read_text()) for file in records]
    runs = [record["speedrun"] | {"cpus": record["environment"]["cpus"]} for record in runs]
    names = [file.resolve().relative_to(ROOT).as_posix() for file in records]
    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        metadata = {"Source": "; ".join(names), "Date": None, "Creator": None}
        for name in PICTURES:
            figure = Figure(figsize=(4.2, 3.1), layout="constrained")
            figure.get_layout_engine().set(w_pad=0.15)  # Another font may be wider.
            axes = figure.subplots()
            if name == PICTURES[0]:
                _draw_speed(axes, suite)
            else:
                _draw_accuracy(axes, runs, suite["end_to_end"]["runs"]["mlp-xp train"])
            axes.patch.set_alpha(0)
            axes.spines[["top", "right"]].set_visible(False)
            figure.savefig(folder / name, transparent=True, metadata=metadata)


def _draw_speed(axes: Any, suite: Result) -> None:
    workload = suite["workloads"][WORKLOAD]
    rates = fastest(workload["contenders"], workload["images"])
    medians = [rate.median for rate in rates.values()]
    quartiles = [
        [rate.median - rate.low for rate in rates.values()],
        [rate.high - rate.median for rate in rates.values()],
    ]
    colors = [OURS if name.startswith("mlp_xp") else GRAY for name in rates]
    axes.barh(list(rates), medians, color=colors, xerr=quartiles, ecolor="#333333")
    for place, rate in enumerate(rates.values()):
        end, text = (max(rate.median, rate.high), place), f"{rate.median:,.0f}"
        axes.annotate(text, end, (5, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("CIFAR-10 images a second in training", loc="left", fontsize=10)
    widths = "-".join(map(str, workload["widths"]))
    batch, cpus = workload["batch_size"], suite["environment"]["cpus"]
    axes.set_xlabel(f"{widths}, Adam, batches of {batch},\nfloat32, {cpus} CPU cores", fontsize=9)


def _draw_accuracy(axes: Any, runs: Sequence[Result], default: Result) -> None:
    seconds = [run["summary"]["seconds"]["mean"] for run in runs]
    means = [100 * run["summary"]["test_accuracy"]["mean"] for run in runs]
    deviations = [100 * run["summary"]["test_accuracy"]["deviation"] for run in runs]
    axes.errorbar(seconds, means, deviations, fmt="o-", color=OURS, capsize=3)
    for second, mean, deviation in zip(seconds, means, deviations, strict=True):
        place = second, mean + deviation
        axes.annotate(f"{mean:.1f} %", place, (-4, 4), textcoords="offset points", ha="right")
    axes.annotate(
        "recipes, PyTorch in bfloat16",
        (seconds[0], means[0]),
        (12, -12),
        textcoords="offset points",
    )
    place = default["seconds"], 100 * default["test_accuracy"]
    axes.plot(*place, "s", color=DEFAULT)
    text = f"{place[1]:.1f} %  mlp-xp train, NumPy"
    axes.annotate(text, place, (8, 0), textcoords="offset points", va="center", color=DEFAULT)
    axes.set_xscale("log")
    ticks = [place[0], *seconds]
    axes.set_xticks(ticks, [f"{tick / 60:.{int(tick < 55)}f}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(x=0.2, y=0.15)
    axes.set_title("CIFAR-10 test accuracy by training time", loc="left", fontsize=10)
    (cpus,) = {run["cpus"] for run in runs}
    (n_seeds,) = {len(run["runs"]) for run in runs}
    axes.set_xlabel(
        f"minutes in all on {cpus} CPU cores, \nrecipes: mean of {n_seeds} seeds", fontsize=9
    )
