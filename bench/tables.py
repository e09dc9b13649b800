"""The report of a run in Markdown."""

from __future__ import annotations

from busy import HEADER, busy_rows
from contenders import OURS
from drop_in import drop_in_section
from report import seconds, table
from searches import search_section
from spread import Spread, ratio, spread
from targets import Target, targets
from turns import Result

__all__ = ["report"]

MILLION = 1e6
TERMS = (
    "Contenders take turns (A B C A B C ...). Each runs in its own process, with the same number "
    "of threads, after a warm-up, on the same data in memory: float32, standardized. *from uint8* "
    "receives the pixels and scales each batch itself. Times are medians over the turns, with "
    f"quartiles. *times ours* is the contender's time divided by that of *{OURS}*, turn by turn: "
    "above 1, mlp_xp is faster. The roofline is a lower bound: the matrix products at the rate of "
    "a large product, plus the bytes of the updates at the rate of a large copy, both measured in "
    "turns with the contenders. Memory is the peak of the process, with interpreter, libraries "
    "and data. No contender penalizes the weights. *lab* uses SGD with Nesterov momentum, which "
    "thinc lacks: thinc does less work there."
)


def report(result: Result) -> str:
    """Return the whole page."""
    settings = result["settings"]
    sections = [
        "# Side by side",
        f"{'A quick run' if settings['quick'] else 'A run'} of {settings['rounds']} rounds, "
        f"{settings['threads']} threads each, {result['environment']['date']}.",
        TERMS,
    ]
    if found := targets(result):
        sections += ["## Targets", targets_table(found)]
    if result["workloads"]:
        sections.append("![Times of each contender](epochs.png)")
    for workload in result["workloads"].values():
        sections += [f"## {workload['title']}", *workload_section(workload)]
    if drop_in := result.get("drop_in"):
        sections += ["## As a drop-in for scikit-learn", drop_in_section(drop_in)]
    if search := result.get("search"):
        sections += ["## Searches", search_section(search)]
    if busy := result.get("busy"):
        rows = table(HEADER, "lrrrrr", busy_rows(busy))
        sections += ["## Beside a program that keeps a processor busy", rows.rstrip()]
    if startup := result.get("startup"):
        sections += [
            "## Start-up",
            "Each library in a fresh process: the import, then the first step of the medium "
            "network with everything compiled for it. Caches of an earlier run were there.",
            startup_table(startup),
        ]
    if whole := result.get("end_to_end"):
        sections += ["## End to end", *end_to_end_section(whole)]
    if growth := result.get("growth"):
        sections += ["## Growth", "![Seconds of an epoch](growth.png)", growth_table(growth)]
    sections += ["## Measured on", platform(result)]
    return "\n\n".join(sections) + "\n"


def targets_table(found: list[Target]) -> str:
    rows = [
        [item.name, item.wanted, item.measured, "yes" if item.met else "**no**"] for item in found
    ]
    return table(["measure", "target", "measured", "met"], "llrl", rows)


def workload_section(workload: Result) -> list[str]:
    least, train = workload["floor"], workload["kind"] == "train"
    unit = "epoch" if train else "call"
    text = (
        f"{workload['images']:,} images of {workload['data']} in {_a(unit)}"
        + (f", {workload['steps']:,} steps of {workload['solver']}" if train else "")
        + f". Roofline {seconds(least['seconds'])}: {least['operations'] / 1e9:,.3g} GFLOP at "
        f"{least['product_rate'] / 1e9:,.0f} GFLOP/s ({least['product']})"
        + (
            f", {least['bytes'] / 1e9:,.3g} GB at {least['copy_rate'] / 1e9:,.1f} GB/s"
            if train
            else ""
        )
        + f". The images take {workload['pixels'] / MILLION:,.1f} MB as uint8, four times that as "
        "float32; parameters and optimizer state take "
        f"{workload['state_bytes'] / MILLION:,.1f} MB."
    )
    names = [f"{unit}, median", "quartiles", "images/s", "times ours", "of roofline", "peak MB"]
    contenders = workload["contenders"]
    rows = [contender_row(name, run, workload) for name, run in contenders.items()]
    failed = [
        f"- {name} cannot run here: {run['cannot_run']}"
        for name, run in contenders.items()
        if "cannot_run" in run
    ]
    sections = [text, table(["contender", *names], "lrrrrrr", rows)]
    return [*sections, "\n".join(failed)] if failed else sections


def contender_row(name: str, run: Result, workload: Result) -> list[str]:
    if "cannot_run" in run:
        return [name, "cannot run here", *[""] * 5]
    own = spread(run["seconds"])
    ours = workload["contenders"].get(OURS, {}).get("seconds")
    return [
        name,
        seconds(own.median),
        _range(own),
        f"{workload['images'] / own.median:,.0f}",
        f"{ratio(run['seconds'], ours).median:.2f}" if ours else "",
        f"{workload['floor']['seconds'] / own.median:.0%}",
        f"{run['peak_bytes'] / MILLION:,.0f}" if run.get("peak_bytes") else "",
    ]


def startup_table(startup: Result) -> str:
    imports, steps = startup["imports"], startup["first_steps"]
    # As a contender ours has another name; after another import no step is measured.
    rows = [
        [name, *startup_cells(run), *startup_cells(steps.get(OURS if name == "mlp_xp" else name))]
        for name, run in imports.items()
    ]
    return table(["library", "import", "quartiles", "first step", "quartiles"], "lrrrr", rows)


def startup_cells(run: Result | None) -> list[str]:
    if run is None:
        return ["", ""]
    if "cannot_run" in run:
        return ["cannot run here", run["cannot_run"]]
    own = spread(run["seconds"])
    return [seconds(own.median), _range(own)]


def end_to_end_section(whole: Result) -> list[str]:
    if "cannot_run" in whole:
        return [f"Cannot run here: {whole['cannot_run']}"]
    rows = []
    for name, run in whole["runs"].items():
        if "cannot_run" in run:
            rows.append([name, "cannot run here", run["cannot_run"], "", ""])
            continue
        peak = f"{run['peak_bytes'] / MILLION:,.0f}" if run.get("peak_bytes") else ""
        times = [seconds(run["seconds"]), seconds(run["training_seconds"])]
        rows.append([name, *times, f"{run['test_accuracy']:.2%}", peak])
    return [
        f"The default network on CIFAR-10 for {whole['epochs']} epochs: the whole process, once.",
        table(["run", "total", "training", "test accuracy", "peak MB"], "lrrrr", rows),
    ]


def growth_table(growth: Result) -> str:
    rows = [
        [title, f"{point['value']:,}", *map(_median, point["contenders"].values())]
        for title, points in growth.items()
        for point in points
    ]
    names = next(iter(growth.values()))[0]["contenders"]
    return table(["varied", "value", *names], "lr" + "r" * len(names), rows)


def platform(result: Result) -> str:
    facts = result["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"- {facts['cpu']}, {facts['cpus']} CPUs, {facts['system']}",
        f"- Python {facts['python']}, {versions}",
    ]
    for name, pools in _pools(result).items():
        lines.append(f"- {name}: {', '.join(pools) or 'no pool known to threadpoolctl'}")
    return "\n".join(lines)


def _pools(result: Result) -> dict[str, list[str]]:
    """Return the thread pools of each contender in its last workload."""
    return {
        name: run["thread_pools"]
        for workload in result["workloads"].values()
        for name, run in workload["contenders"].items()
        if "cannot_run" not in run
    }


def _median(run: Result) -> str:
    return "cannot run" if "cannot_run" in run else seconds(spread(run["seconds"]).median)


def _range(own: Spread) -> str:
    return f"{seconds(own.low)} to {seconds(own.high)}"


def _a(unit: str) -> str:
    return f"an {unit}" if unit == "epoch" else f"a {unit}"
