"""Charts of runs, and the images of the README, whose metadata names their records."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.reports.bars import COLORS, GRAY, OURS, Bar, draw_bars, new_figure, rate_panels
from bench.reports.sections import fastest
from bench.studies import settings
from bench.studies.backends import epochs_of
from bench.suite import contenders
from bench.suite.records import HISTORY, ROOT, Result, newest
from bench.suite.tables import count, measured, spread

LINES = {
    contenders.OURS: OURS,
    "torch": COLORS["torch:cpu"],
    "JAX": COLORS["jax:cpu"],
    "scikit-learn": COLORS["jax:cuda"],
}
IMAGES = ("readme-speed.svg", "readme-accuracy.svg")
WORKLOAD = "medium"
RECIPES = ("one-minute", "five-minutes", "ten-minutes")
# The highest accuracy in the table "Published results" of docs/accuracy.md.
PUBLISHED = 85.19, "S-FC with beta-LASSO, 4,000 epochs"
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


def draw(result: Result, folder: Path) -> None:
    if workloads := [w for w in result["workloads"].values() if fastest(w)]:
        epochs_figure(workloads).savefig(folder / "epochs.png", dpi=200)
    if growth := result.get("growth"):
        growth_figure(growth).savefig(folder / "growth.png", dpi=200)
    if backends := result.get("backends"):
        backends_figure(backends).savefig(folder / "benchmarks.png", dpi=200)
    if study := result.get("settings_study"):
        settings_figure(study).savefig(folder / "settings.png", dpi=200)


def epochs_figure(workloads: list[Result]) -> Any:
    """Draw a panel per workload with images per second, fastest first, and the roofline."""
    panels = {workload["title"]: bars_of(workload) for workload in workloads}
    lines = {one["title"]: one["images"] / one["floor"]["seconds"] for one in workloads}
    note = (
        "The fastest way of each library and precision; blue: mlp_xp. Thin lines: quartiles.\n"
        "Dotted: roofline in float32, where it is near. predict and one-row are predictions."
    )
    return rate_panels(panels, "Images per second", note, lines)


def bars_of(workload: Result, precision: str | None = None) -> dict[str, Bar]:
    """Return a bar for the fastest contender of each library in one precision, or in each."""
    return {
        name: Bar(rate.median, OURS if library == "mlp_xp" else GRAY, rate[1:])
        for (library, own), (name, rate) in fastest(workload).items()
        if precision in (None, own)
    }


def backends_figure(backends: Result) -> Any:
    """Draw images per second of training epochs by network, with paler bars for streamed data."""
    panels: dict[str, dict[str, Bar]] = {}
    for run in epochs_of(backends):
        alpha = 0.55 if run["placement"] == "streamed" else 1.0
        bar = Bar(run["images_per_second"], COLORS.get(run["backend"], GRAY), alpha=alpha)
        panels.setdefault(run["workload"], {})[f"{run['backend']}, {run['placement']}"] = bar
    note = "Resident: all data are on the device; streamed: a batch at a time is sent there."
    return rate_panels(panels, "Images per second of a training epoch", note)


def growth_figure(growth: Result) -> Any:
    """Draw the seconds per epoch against the varied quantity, both on logarithmic axes."""
    figure, axes = new_figure(7.5, 6.4, 2, 2, sharey=True)
    for axis, (title, points) in zip(axes.flat, growth.items(), strict=True):
        for name, color in LINES.items():
            runs = {point["value"]: point["contenders"][name] for point in points}
            known = {value: spread(times).median for value, times in measured(runs).items()}
            axis.loglog([*known], [*known.values()], "o-", color=color, markersize=4, label=name)
        axis.set_title(f"By {title}", fontsize=9, loc="left")
        axis.set_xticks([point["value"] for point in points])
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter("{x:g} s")
        axis.minorticks_off()
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle("Seconds of an epoch, both axes logarithmic", fontsize=10)
    return figure


def settings_figure(study: Result) -> Any:
    """Draw JAX's time divided by ours for each setting, a panel for each network."""
    figure, grid = new_figure(9, 7, 1, len(study), squeeze=False)
    for axis, (title, result) in zip(grid.flat, study.items(), strict=True):
        found = sorted(settings.ratios(result).items(), key=lambda item: -item[1].median)
        for place, (_, got) in enumerate(found):
            axis.barh(place, got.median, 0.7, color=OURS if got.median >= 1 else GRAY)
            axis.plot([got.low, got.high], [place, place], color="0.2", linewidth=1)
        axis.axvline(1, color="black", linestyle=":", linewidth=1)
        axis.set_yticks(range(len(found)), [name for name, _ in found], fontsize=7)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=9, loc="left")
    figure.suptitle("A step with each setting: JAX's time / ours", fontsize=10)
    figure.supxlabel("Gray: JAX is faster. Thin lines: quartiles.", fontsize=8)
    return figure


def speedrun_figure(result: Result) -> Any:
    """Draw loss and accuracy of a recipe over the training time, one line per seed."""
    figure, (losses, accuracies) = new_figure(8, 3.4, 1, 2)
    runs = [*result["runs"].values()]
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
        axes.grid(alpha=0.3)
    lines = {line.get_label(): line for line in reversed(accuracies.lines)}
    accuracies.legend(handles=[*reversed(lines.values())], frameon=False)
    figure.suptitle(f"{result['command']}, {count(len(runs), 'seed')}")
    return figure


@contextmanager
def image(path: Path, size: tuple[float, float], source: str | None = None) -> Iterator[Any]:
    """Yield axes, then write the plot as SVG for light and dark pages."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(*size)
        yield axes
        axes.patch.set_alpha(0)
        metadata = {"Source": source, "Date": None, "Creator": None}
        figure.savefig(path, transparent=True, metadata=metadata)


def readme_sources() -> list[Path]:
    """Return the records to plot: a run of the suite, then the newest record of each recipe."""
    suite, _ = newest("workloads", WORKLOAD, "one-row")
    return [suite, *(max(HISTORY.glob(f"*/speedrun-{recipe}.json")) for recipe in RECIPES)]


def draw_readme(records: Sequence[Path], folder: Path) -> None:
    """Draw the records that `readme_sources` returns, and write `IMAGES` into a folder."""
    suite, *runs = [json.loads(file.read_text()) for file in records]
    source = "; ".join(file.resolve().relative_to(ROOT).as_posix() for file in records)
    for name, show in zip(IMAGES, (_draw_speed, _draw_accuracy), strict=True):
        with image(folder / name, (4.2, 3.1), source) as axes:  # Narrow enough for phones.
            axes.figure.get_layout_engine().set(w_pad=0.15)  # Leave room for wider fonts.
            show(axes, suite, runs)


def _draw_speed(axes: Any, suite: Result, runs: Sequence[Result]) -> None:
    workload = suite["workloads"][WORKLOAD]
    draw_bars(axes, bars_of(workload, "float32"))
    axes.set_title("CIFAR-10 images a second in training", loc="left", fontsize=10)
    widths = "-".join(map(str, workload["widths"]))
    batch, cpus = workload["batch_size"], suite["environment"]["cpus"]
    note = f"{widths}, Adam, batches of {batch},\nfloat32, {cpus} CPU cores; thin lines: quartiles"
    axes.set_xlabel(note, fontsize=9)


def _draw_accuracy(axes: Any, suite: Result, runs: Sequence[Result]) -> None:
    summaries = [run["speedrun"]["summary"] for run in runs]
    seconds = [summary["seconds"]["mean"] for summary in summaries]
    means = [100 * summary["test_accuracy"]["mean"] for summary in summaries]
    deviations = [100 * summary["test_accuracy"]["deviation"] for summary in summaries]
    axes.errorbar(seconds, means, deviations, fmt="o-", color=OURS, capsize=3)

    def write(text: str, place: tuple[float, float], offset: tuple[int, int], **more: Any) -> None:
        axes.annotate(text, place, offset, textcoords="offset points", **more)

    for second, mean in zip(seconds, means, strict=True):
        write(f"{mean:.1f} %", (second, mean), (4, -13))
    write("recipes, PyTorch in bfloat16", (seconds[0], means[0]), (12, -26), color=OURS)
    known, source = PUBLISHED
    axes.axhline(known, color=GRAY, linestyle="--", linewidth=1)
    write(f"{known:.1f} %  {source}", (0, known), (2, 4), xycoords=("axes fraction", "data"))
    named = {
        "torch script": ("same network in torch", TEXT, -12),
        "mlp-xp train": ("mlp-xp train, NumPy", COLORS["torch:cuda"], 6),
    }
    for name, (label, color, height) in named.items():
        run = suite["end_to_end"]["runs"][name]
        place = run["seconds"], 100 * run["test_accuracy"]
        axes.plot(*place, "s", color=color)
        write(f"{place[1]:.1f} %  {label}", place, (6, height), color=color)
    axes.set_xscale("log")
    ticks = [place[0], *seconds]
    axes.set_xticks(ticks, [f"{tick / 60:.{int(tick < 55)}f}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(x=0.2, y=0.15)
    axes.set_title("CIFAR-10 test accuracy by training time", loc="left", fontsize=10)
    (cpus,) = {run["environment"]["cpus"] for run in runs}
    seeds = " or ".join(map(str, sorted({len(run["speedrun"]["runs"]) for run in runs})))
    note = f"minutes in all on {cpus} CPU cores, \nrecipes: mean of {seeds} seeds"
    axes.set_xlabel(note, fontsize=9)
