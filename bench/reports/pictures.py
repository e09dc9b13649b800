"""The images of the README, drawn from the newest records.

The images are narrow enough for phones; on wide pages, they are side by side. Their metadata
contains the names of the records.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.reports.bars import COLORS, GRAY, OURS
from bench.reports.sections import fastest
from bench.suite.records import HISTORY, ROOT, Result, newest

PICTURES = ("readme-speed.svg", "readme-accuracy.svg")
WORKLOAD = "medium"
RECIPES = ("one-minute", "five-minutes", "ten-minutes")
TEXT = "#797979"  # This gray has the same contrast, 4.3 to 1, on white and on GitHub's dark pages.
STYLE = {
    "svg.fonttype": "none",  # Keep text as text, so it is sharp and tests can read it.
    "svg.hashsalt": "readme",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), TEXT
    ),
}


@contextmanager
def picture(path: Path, size: tuple[float, float], source: str | None = None) -> Iterator[Any]:
    """Yield axes, then write the plot as SVG for light and dark pages."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        yield axes
        axes.patch.set_alpha(0)
        axes.spines[["top", "right"]].set_visible(False)
        metadata = {"Source": source, "Date": None, "Creator": None}
        figure.savefig(path, transparent=True, metadata=metadata)


def sources() -> list[Path]:
    """Return the records to plot: a run of the suite, then the newest record of each recipe."""
    suite, _ = newest("workloads", WORKLOAD, "one-row")
    return [suite, *(max(HISTORY.glob(f"*/speedrun-{recipe}.json")) for recipe in RECIPES)]


def draw(records: Sequence[Path], folder: Path) -> None:
    """Draw the records that `sources` returns, and write `PICTURES` into a folder."""
    suite, *runs = [json.loads(file.read_text()) for file in records]
    source = "; ".join(file.resolve().relative_to(ROOT).as_posix() for file in records)
    for name, show in zip(PICTURES, (_draw_speed, _draw_accuracy), strict=True):
        with picture(folder / name, (4.2, 3.1), source) as axes:
            axes.figure.get_layout_engine().set(w_pad=0.15)  # Leave room for wider fonts.
            show(axes, suite, runs)


def _draw_speed(axes: Any, suite: Result, runs: Sequence[Result]) -> None:
    workload = suite["workloads"][WORKLOAD]
    ways = [way for (_, low), way in fastest(workload).items() if low == "float32"]
    names, rates = zip(*sorted(ways, key=lambda way: -way[1].median), strict=True)
    medians = [rate.median for rate in rates]
    quartiles = [
        [rate.median - rate.low for rate in rates],
        [rate.high - rate.median for rate in rates],
    ]
    colors = [OURS if name.startswith("mlp_xp") else GRAY for name in names]
    bars = axes.barh(names, medians, color=colors, xerr=quartiles, ecolor="#333333")
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in medians], padding=5)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("CIFAR-10 images a second in training", loc="left", fontsize=10)
    widths = "-".join(map(str, workload["widths"]))
    batch, cpus = workload["batch_size"], suite["environment"]["cpus"]
    axes.set_xlabel(f"{widths}, Adam, batches of {batch},\nfloat32, {cpus} CPU cores", fontsize=9)


def _draw_accuracy(axes: Any, suite: Result, runs: Sequence[Result]) -> None:
    summaries = [run["speedrun"]["summary"] for run in runs]
    seconds = [summary["seconds"]["mean"] for summary in summaries]
    means = [100 * summary["test_accuracy"]["mean"] for summary in summaries]
    deviations = [100 * summary["test_accuracy"]["deviation"] for summary in summaries]
    axes.errorbar(seconds, means, deviations, fmt="o-", color=OURS, capsize=3)

    def write(text: str, place: tuple[float, float], offset: tuple[int, int], **more: Any) -> None:
        axes.annotate(text, place, offset, textcoords="offset points", **more)

    for second, mean, deviation in zip(seconds, means, deviations, strict=True):
        write(f"{mean:.1f} %", (second, mean + deviation), (-4, 4), ha="right")
    write("recipes, PyTorch in bfloat16", (seconds[0], means[0]), (12, -12))
    default, color = suite["end_to_end"]["runs"]["mlp-xp train"], COLORS["torch:cuda"]
    place = default["seconds"], 100 * default["test_accuracy"]
    axes.plot(*place, "s", color=color)
    write(f"{place[1]:.1f} %  mlp-xp train, NumPy", place, (8, 0), va="center", color=color)
    axes.set_xscale("log")
    ticks = [place[0], *seconds]
    axes.set_xticks(ticks, [f"{tick / 60:.{int(tick < 55)}f}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(x=0.2, y=0.15)
    axes.set_title("CIFAR-10 test accuracy by training time", loc="left", fontsize=10)
    (cpus,) = {run["environment"]["cpus"] for run in runs}
    counts = sorted({len(run["speedrun"]["runs"]) for run in runs})
    seeds = " or ".join(map(str, counts))
    axes.set_xlabel(
        f"minutes in all on {cpus} CPU cores, \nrecipes: mean of {seeds} seeds", fontsize=9
    )
