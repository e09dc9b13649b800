"""The report of a run in Markdown."""

from __future__ import annotations

from busy import HEADER, busy_rows
from contenders import OURS
from drop_in import drop_in_section
from report import folded, library, seconds, table
from searches import search_section
from spread import Spread, ratio, spread
from targets import Target, ran, targets
from turns import Result

__all__ = ["report", "slower"]

MILLION = 1e6
LIBRARIES = ("mlp_xp", "scikit-learn", "torch", "JAX", "Keras", "skorch", "thinc")
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
    ]
    if result["workloads"]:
        sections += [
            "Images a second in training, or in prediction where the name says so. Each library "
            "in its fastest way in float32.",
            throughput_table(result),
            slower(result),
            "![Times of each contender](epochs.png)",
        ]
    sections.append(TERMS)
    for workload in result["workloads"].values():
        text, rows, *failed = workload_section(workload)
        summary = f"{len(workload['contenders'])} contenders: times, quartiles, memory"
        sections += [f"## {workload['title']}", text, folded(summary, rows), *failed]
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
    if found := targets(result):
        missed = sum(not item.met for item in found)
        summary = f"{len(found)} targets, {missed} missed"
        sections += [
            "## Targets",
            "What this project wants of itself, before each release.",
            folded(summary, targets_table(found)),
        ]
    sections += ["## Measured on", folded("Machine, versions and threads", platform(result))]
    return "\n\n".join(sections) + "\n"


def fastest(contenders: Result, precisions: tuple[str, ...] = ("float32",)) -> dict[str, float]:
    """Return the seconds of each library's fastest way on the same inputs."""
    times: dict[str, float] = {}
    for name, run in contenders.items():
        if run["precision"] in precisions and not name.endswith("from uint8"):
            median = spread(run["seconds"]).median
            times[library(name)] = min(median, times.get(library(name), median))
    return times


def throughput_table(result: Result) -> str:
    rows = []
    for key, workload in result["workloads"].items():
        times = fastest(ran(result, key))
        rates = {name: f"{workload['images'] / times[name]:,.0f}" for name in times}
        if times:
            best = min(times, key=lambda name: times[name])
            rates[best] = f"**{rates[best]}**"
        rows.append([workload["title"], *(rates.get(name, "") for name in LIBRARIES)])
    return table(["network", *LIBRARIES], "l" + "r" * len(LIBRARIES), rows)


def slower(result: Result) -> str:
    """Return a sentence with the workloads in which others are faster, and by what."""
    found = []
    for key, workload in result["workloads"].items():
        times = fastest(ran(result, key))
        own = times.pop("mlp_xp", 0.0)
        ahead = [name for name in sorted(times, key=lambda name: times[name]) if times[name] < own]
        if ahead:
            others = ", ".join(f"{name} {seconds(times[name])}" for name in ahead)
            found.append(f"{workload['title']} ({others}, mlp_xp {seconds(own)})")
    low = []
    for key in result["workloads"]:
        times = fastest(ran(result, key), ("float32", "bfloat16"))
        own, torch = times.get("mlp_xp", 0.0), times.get("torch", float("inf"))
        if torch < own and torch < fastest(ran(result, key)).get("torch", 0.0):
            low.append(f"{key} ({seconds(torch)}, mlp_xp {seconds(own)})")
    text = f"**Others are faster** in {'; '.join(found) or 'none of these'}"
    return text + (f"; torch in bfloat16 in {', '.join(low)}." if low else ".")


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
    alike: dict[str, list[str]] = {}
    for name, pools in _pools(result).items():
        text = ", ".join(pools) or "no pool known to threadpoolctl"
        alike.setdefault(text, []).append(name)
    lines += [f"- {'; '.join(names)}: {text}" for text, names in alike.items()]
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
