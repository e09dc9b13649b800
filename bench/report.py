"""Write docs/benchmarks.md and its chart from the benchmarks' JSON.

    pytest bench --benchmark-enable --benchmark-json=results.json
    python bench/report.py results.json --suite bench/history/2026-01-02-120000 --out docs

Writes benchmarks.md and benchmarks.png. With --suite, the report of `mlp-xp bench` in that folder
becomes part of the page, and its charts are copied.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

__all__ = [
    "chart",
    "epoch_table",
    "page",
    "platform_list",
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
            epochs,
        ]
    if transfers:
        sections += [
            "## Transfers",
            "CIFAR-10 as uint8, moved as a whole or in batches, without computation. A shuffled "
            "feed also gathers the rows of each batch. On a CPU most libraries share the host's "
            "memory and copy nothing.",
            transfers,
        ]
    sections += ["## Measured on", platform_list(results), "## Measure again", REPRODUCE]
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
    """Draw images per second: a panel a network, a color a backend, streamed bars hatched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    infos = [bench["extra_info"] for bench in epochs_of(benchmarks)]
    titles = list(dict.fromkeys(info["workload"] for info in infos))
    backends = list(dict.fromkeys(info["backend"] for info in infos))
    n_rows = -(-len(titles) // 2)
    figure = Figure(figsize=(11, n_rows * (1.1 + 0.6 * len(backends)) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    # The networks differ by a factor of a hundred, so each has its own axis.
    axes = figure.subplots(n_rows, 2, squeeze=False).ravel()
    for axis, title in zip(axes, titles, strict=False):
        for info in infos:
            if info["workload"] != title:
                continue
            streamed = info["placement"] == "streamed"
            rate = info["images_per_second"]
            place = backends.index(info["backend"]) + (0.2 if streamed else -0.2)
            color = COLORS.get(info["backend"], GRAY)
            style = {"hatch": "////"} if streamed else {}
            bars = axis.barh(place, rate, 0.38, color=color, edgecolor="white", **style)
            axis.bar_label(bars, [f"{rate:,.0f}"], padding=4, fontsize=9)
        axis.set_title(title, fontsize=11, loc="left")
        axis.set_yticks(range(len(backends)), backends)
        axis.set_ylim(len(backends) - 0.5, -0.5)
        axis.set_xlabel("images per second")
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.locator_params(axis="x", nbins=5)
        axis.margins(x=0.15)
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(titles) :]:
        axis.set_axis_off()
    handles = [
        Patch(facecolor=GRAY, edgecolor="white", label="resident on the device"),
        Patch(facecolor=GRAY, edgecolor="white", hatch="////", label="streamed to the device"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


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


def table(names: list[str], alignment: str, rows: list[list[str]]) -> str:
    if not rows:
        return ""
    rule = ["--:" if side == "r" else "---" for side in alignment]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, rule, *rows])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", type=Path, nargs="+", help="files of --benchmark-json, all from one machine"
    )
    parser.add_argument("--suite", type=Path, metavar="DIR", help="folder of `mlp-xp bench`")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder (%(default)s)")
    args = parser.parse_args(argv)

    runs = [json.loads(path.read_text()) for path in args.results]
    results = runs[-1] | {"benchmarks": [bench for run in runs for bench in run["benchmarks"]]}
    if not results["benchmarks"]:
        parser.error(f"{args.results[-1]} holds no benchmark; was it run with --benchmark-enable?")
    args.out.mkdir(parents=True, exist_ok=True)
    if epochs_of(results["benchmarks"]):
        chart(results["benchmarks"], args.out / "benchmarks.png")
    suite = ""
    if args.suite is not None:
        suite = (args.suite / "report.md").read_text(encoding="utf-8")
        for picture in args.suite.glob("*.png"):
            shutil.copy(picture, args.out)
    (args.out / "benchmarks.md").write_text(page(results, suite), encoding="utf-8")


if __name__ == "__main__":
    main()
