"""Write docs/benchmarks.md and its chart from the benchmarks' JSON.

    pytest bench --benchmark-enable --benchmark-json=results.json
    python bench/report.py results.json --suite bench/history/2026-01-02-120000 --out docs

Writes benchmarks.md and benchmarks.png, and keeps the record that they are made of in
bench/history, from which alone this command makes them again. With --suite, the report and the
charts of `mlp-xp bench` are made from its record in that folder, and are part of the page.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "Bar",
    "chart",
    "epoch_table",
    "folded",
    "library",
    "page",
    "platform_list",
    "rate_panels",
    "record_of",
    "replace_block",
    "seconds",
    "table",
    "transfer_table",
]

Bench = dict[str, Any]

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
HISTORY = Path(__file__).parent / "history"
REPRODUCE = """\
```bash
pip install -e ".[test,fast,peers]"
mkdir -p results
for backend in numpy torch:cpu jax:cpu; do  # a process each
    pytest bench --benchmark-enable --bench-backends=$backend --benchmark-json=results/$backend.json
done
mlp-xp bench --out results/suite
python bench/report.py results/{numpy,torch:cpu,jax:cpu}.json --suite results/suite
```"""


def record_of(runs: list[Bench]) -> Bench:
    """Return what the page takes of some runs, all from one machine."""
    benchmarks = [
        {
            "extra_info": bench["extra_info"],
            "stats": {name: bench["stats"][name] for name in ("median", "iqr")},
        }
        for run in runs
        for bench in run["benchmarks"]
    ]
    environment = runs[-1]["machine_info"]["environment"]
    return {"machine_info": {"environment": environment}, "benchmarks": benchmarks}


def page(results: Bench, suite: str) -> str:
    """Return the page: the report of the suite, epochs, transfers, and their machine."""
    benchmarks = results["benchmarks"]
    epochs, transfers = epoch_table(benchmarks), transfer_table(benchmarks)
    # Its title becomes a heading of this page, and its headings go one level down.
    sections = ["# Benchmarks", re.sub("^#", "##", suite, flags=re.MULTILINE)]
    if epochs:
        sections += [
            "## Training epochs",
            "Adam in float32 on uint8 images, standardized batch by batch. Resident data are on "
            "the device as a whole; streamed data are sent a batch at a time. IQR is the "
            "interquartile range of the rounds. Each backend ran in its own process, one after "
            "the other, not in turns: compare backends with that in mind.",
            "![Images per second of a training epoch, by network and backend](benchmarks.png)",
            folded("Each network, backend and placement", epochs),
        ]
    if transfers:
        sections += [
            "## Transfers",
            "CIFAR-10 as uint8, moved as a whole or in batches, without computation. A shuffled "
            "feed also gathers the rows of each batch. On a CPU most libraries share the host's "
            "memory and copy nothing.",
            folded("Each transfer", transfers),
        ]
    sections += ["## Measured on", folded("Machine and versions", platform_list(results))]
    sections += ["## Measure again", REPRODUCE]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def epoch_table(benchmarks: list[Bench]) -> str:
    """Return the table of epochs, empty without any."""
    rows = []
    for bench in epochs_of(benchmarks):
        info, stats = bench["extra_info"], bench["stats"]
        rows.append(
            [
                info["workload"],
                info["backend"],
                info["placement"],
                f"{info['images']:,} {info['data']}",
                seconds(stats["median"]),
                seconds(stats["iqr"]),
                f"{info['images_per_second']:,.0f}",
            ]
        )
    names = ["network", "backend", "data", "images", "median", "IQR", "images/s"]
    return table(names, "lllrrrr", rows)


def transfer_table(benchmarks: list[Bench]) -> str:
    """Return the table of transfers, empty without any."""
    rows = []
    for bench in benchmarks:
        info, stats = bench["extra_info"], bench["stats"]
        if "mb_per_second" not in info:
            continue
        rate = info["mb_per_second"]
        batch = f"{info['rows']:,}" if isinstance(info["rows"], int) else info["rows"]
        copied = "nothing copied" if rate is None else f"{rate:,.0f}"
        times = [seconds(stats["median"]), seconds(stats["iqr"])]
        images = f"{info['images']:,} {info['data']}"
        rows.append([info["transfer"], info["backend"], batch, images, *times, copied])
    names = ["transfer", "backend", "batch", "images", "median", "IQR", "MB/s"]
    return table(names, "llrrrrr", sorted(rows, key=lambda row: row[0]))


def platform_list(results: Bench) -> str:
    """Return a list of date, processor, versions, BLAS, threads, and each backend's device."""
    facts = results["machine_info"]["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"- {facts['date']}",
        f"- {facts['cpu']}, {facts['cpus']} CPUs, {facts['system']}",
        f"- Python {facts['python']}, {versions}",
        f"- thread pools: {', '.join(facts['thread_pools']) or 'none'}",
    ]
    backends = {}
    for bench in results["benchmarks"]:
        info = bench["extra_info"]
        extras = [
            f"{key} {info[key]}" for key in ("blas", "threads", "cuda", "driver") if key in info
        ]
        backends[info["backend"]] = "; ".join([info["library"], info["device"], *extras])
    return "\n".join(lines + [f"- `{name}`: {text}" for name, text in backends.items()])


def chart(benchmarks: list[Bench], path: Path) -> None:
    """Draw images per second: a panel a network, paler bars for streamed data."""
    panels: dict[str, dict[str, Bar]] = {}
    for bench in epochs_of(benchmarks):
        info = bench["extra_info"]
        color = COLORS.get(info["backend"], GRAY)
        is_streamed = info["placement"] == "streamed"
        bar = Bar(info["images_per_second"], color, alpha=0.55 if is_streamed else 1.0)
        panels.setdefault(info["workload"], {})[f"{info['backend']}, {info['placement']}"] = bar
    note = "Resident: all data are on the device; streamed: a batch at a time is sent there."
    rate_panels(panels, "Images per second of a training epoch", note).savefig(path, dpi=200)


class Bar(NamedTuple):
    """A bar of a chart: images per second, its color, and quartiles if they are drawn."""

    median: float
    color: str
    quartiles: tuple[float, float] | None = None
    alpha: float = 1.0


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
    axes = figure.subplots(
        len(heights), 2, squeeze=False, height_ratios=[2 + n for n in heights]
    ).ravel()
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


def library(contender: str) -> str:
    """Return the library of a contender, such as JAX of "JAX, epoch in a scan"."""
    return re.split(r"[ ,]", contender)[0]


def epochs_of(benchmarks: list[Bench]) -> list[Bench]:
    """Return the complete epochs, grouped by network."""
    epochs = [bench for bench in benchmarks if "images_per_second" in bench["extra_info"]]
    order = list(dict.fromkeys(bench["extra_info"]["workload"] for bench in epochs))
    return sorted(epochs, key=lambda bench: order.index(bench["extra_info"]["workload"]))


def seconds(value: float) -> str:
    """Return a time with three digits and its unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def replace_block(page: str, name: str, text: str) -> str:
    """Return the page with this text between ``<!-- name -->`` and ``<!-- end of name -->``."""
    block = re.compile(f"(<!-- {name} -->\n).*(<!-- end of {name} -->)", re.DOTALL)
    return block.sub(lambda found: f"{found[1]}{text}{found[2]}", page)


def folded(summary: str, text: str) -> str:
    """Return Markdown that a click on its summary opens."""
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


def table(names: list[str], alignment: str, rows: list[list[str]]) -> str:
    if not rows:
        return ""
    rule = ["--:" if side == "r" else "---" for side in alignment]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, rule, *rows])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results",
        type=Path,
        nargs="+",
        help="files of --benchmark-json, all from one machine; or the record of an earlier page",
    )
    parser.add_argument("--suite", type=Path, metavar="DIR", help="folder of `mlp-xp bench`")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder (%(default)s)")
    parser.add_argument("--history", type=Path, default=HISTORY, help="folder (%(default)s)")
    args = parser.parse_args(argv)

    runs = [json.loads(path.read_text()) for path in args.results]
    if not any(run["benchmarks"] for run in runs):
        parser.error(f"{args.results[-1]} holds no benchmark; was it run with --benchmark-enable?")
    results = record_of(runs)
    date = results["machine_info"]["environment"]["date"][:10]
    record = args.history / f"{date}-backends.json"
    record.write_text(json.dumps(results, indent=1) + "\n")
    args.out.mkdir(parents=True, exist_ok=True)
    if epochs_of(results["benchmarks"]):
        chart(results["benchmarks"], args.out / "benchmarks.png")
    suite = ""
    if args.suite is not None:
        from charts import draw  # Both import this module.
        from tables import report

        result = json.loads((args.suite / "result.json").read_text())
        suite = report(result)
        draw(result, args.out)
    (args.out / "benchmarks.md").write_text(page(results, suite), encoding="utf-8")


if __name__ == "__main__":
    main()
