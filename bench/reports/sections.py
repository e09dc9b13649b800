"""The report of a run, in Markdown."""

import re

from bench.reports.targets import fastest_peer, targets
from bench.studies import backends, busy, drop_in, products, ranks, search, startup, train_command
from bench.suite import records
from bench.suite.contenders import OURS
from bench.suite.records import Result
from bench.suite.side_by_side import GROWTH, workload_table
from bench.suite.tables import Spread, Table, folded, grid, markdown, median, ratio, seconds, spread
from bench.suite.turns import Part

LIBRARIES = ("mlp_xp", "scikit-learn", "torch", "JAX", "Keras", "skorch", "thinc")
# The parts besides the workloads, by key in a record; options have "-" instead of "_".
PARTS: dict[str, Part] = {
    "drop_in": drop_in.PART,
    "search": search.PART,
    "busy": busy.PART,
    "start_up": startup.PART,
    "end_to_end": train_command.PART,
    "growth": GROWTH,
}
# Parts that run only if --only names them.
STUDIES: dict[str, Part] = {
    "backends": backends.PART,
    "products": products.PART,
    "out_of_core": ranks.OUT_OF_CORE,
    "ranks": ranks.PART,
}
TERMS = (
    "Contenders take turns (A B C A B C ...). Each runs in its own process after a warm-up, with "
    "the same number of threads and the same standardized float32 data in memory. The contender "
    "*from uint8* gets the pixels and scales each batch itself. Times are medians over the turns, "
    f"with quartiles. *times ours* is the contender's time divided by the time of *{OURS}*, "
    "compared turn by turn: above 1, mlp_xp is faster. The roofline is a lower bound: the time of "
    "the matrix products at the speed of a large product, plus the time of the updates at the "
    "speed of a large copy. Both speeds are measured in turns with the contenders. Memory is the "
    "peak of the process, including interpreter, libraries and data. No contender uses a penalty "
    "on the weights. *lab* uses SGD with Nesterov momentum, which thinc lacks, so thinc computes "
    "less."
)


def report(result: Result) -> str:
    """Return the whole page of a run."""
    settings, workloads = result["settings"], result["workloads"]
    sections = [
        "# Side by side",
        f"{'A quick run' if settings['quick'] else 'A run'} with {settings['rounds']} rounds and "
        f"{settings['threads']} threads per contender, {result['environment']['date']}.",
    ]
    if workloads:
        sections += [
            "The table shows images per second in training (for *predict* and *one-row*, in "
            "prediction). Each library runs in float32 with its fastest settings.",
            throughput(workloads),
            slower(workloads),
            "![Times of each contender](epochs.png)",
            TERMS,
        ]
    for workload in workloads.values():
        table = workload_table(workload)
        summary = f"{len(workload['contenders'])} contenders: times, quartiles, memory"
        failed = markdown(table._replace(rows=[], note="", terms=""))
        rows = folded(summary, grid(table.columns, table.rows))
        sections += [f"## {table.title}", table.note + ".", table.terms, rows, failed]
    for key, part in (PARTS | STUDIES).items():
        if measured := result.get(key):
            sections += [f"## {part.title}"]
            sections += ["![Seconds per epoch](growth.png)"] if key == "growth" else []
            for table in part.tables(measured):
                is_only = table.title == part.title
                sections.append(markdown(table, "" if is_only else f"**{table.title}**"))
    if (found := targets(result)).rows:
        missed = sum(row[1] == "no" for row in found.rows)
        summary = f"{len(found.rows)} targets, {missed} missed"
        sections += ["## Targets", found.terms, folded(summary, grid(found.columns, found.rows))]
    sections += ["## Environment", folded("Machine, versions and threads", machine(result))]
    return "\n\n".join(filter(None, sections)) + "\n"


def library(contender: str) -> str:
    """Return the library of a contender, such as JAX for "JAX, epoch in a scan"."""
    return re.split(r"[ ,]", contender)[0]


def fastest(workload: Result) -> dict[tuple[str, str], tuple[str, Spread]]:
    """Return each library's fastest contender in each precision, with its images per second."""
    found: dict[tuple[str, str], tuple[str, Spread]] = {}
    for name, run in workload["contenders"].items():
        if "seconds" in run:
            rate = spread([workload["images"] / taken for taken in run["seconds"]])
            key = library(name), run["precision"]
            if key not in found or rate.median > found[key][1].median:
                found[key] = name, rate
    return found


def _float32(workload: Result) -> dict[str, float]:
    """Return the time of each library's fastest float32 contender on scaled data."""
    runs = workload["contenders"].items()
    same = {name: run for name, run in runs if not name.endswith("uint8")}
    return {
        who: workload["images"] / rate.median
        for (who, precision), (_, rate) in fastest(workload | {"contenders": same}).items()
        if precision == "float32"
    }


def throughput(workloads: Result) -> str:
    """Return the table of images per second by network and library."""
    rows = []
    for workload in workloads.values():
        times = _float32(workload)
        rates = {name: f"{workload['images'] / taken:,.0f}" for name, taken in times.items()}
        if times:
            best = min(times, key=times.__getitem__)
            rates[best] = f"**{rates[best]}**"
        rows.append([workload["title"], *(rates.get(name, "") for name in LIBRARIES)])
    return grid(["network", *LIBRARIES], rows)


def slower(workloads: Result) -> str:
    """Return a sentence about the workloads in which other libraries are faster, with their
    times."""
    found, low = [], []
    for key, workload in workloads.items():
        times = _float32(workload)
        own = times.get("mlp_xp", 0.0)
        ahead = [name for name in sorted(times, key=times.__getitem__) if times[name] < own]
        if ahead:
            others = ", ".join(f"{name} {seconds(times[name])}" for name in ahead)
            found.append(f"{workload['title']} ({others}, mlp_xp {seconds(own)})")
        ways = {who: workload["images"] / way[1].median for who, way in fastest(workload).items()}
        torch = ways.get(("torch", "bfloat16"), float("inf"))
        own = min(own, ways.get(("mlp_xp", "bfloat16"), own))
        if torch < own and torch < times.get("torch", 0.0):
            low.append(f"{key} ({seconds(torch)}, mlp_xp {seconds(own)})")
    text = f"**Other libraries are faster** in {'; '.join(found) or 'none of these'}"
    return text + (f"; torch in bfloat16 in {', '.join(low)}." if low else ".")


def speed_table(workloads: Result) -> Table:
    """Return the table with our times, and the peers' times divided by ours."""
    rows = []
    for workload in workloads.values():
        runs = {who: run for who, run in workload["contenders"].items() if "seconds" in run}
        own, peer = runs[OURS]["seconds"], fastest_peer(runs)
        unit = "epoch" if workload["kind"] == "train" else "prediction"
        ratios = [
            f"{ratio(runs[other]['seconds'], own).median:.2f}" if other in runs else ""
            for other in ("scikit-learn", peer)
        ]
        job = f"{workload['title']}: {unit} of {workload['images']:,}"
        share = f"{workload['floor']['seconds'] / spread(own).median:.0%}"
        rows.append([job, median(own), *ratios, peer or "", share])
    columns = [
        "benchmark",
        "mlp_xp",
        "vs scikit-learn",
        "vs fastest peer",
        "fastest peer",
        "of roofline",
    ]
    return Table("speed", columns, rows)


def machine(result: Result) -> str:
    """Return a list with the machine, its versions, and each contender's thread pools."""
    facts = result["environment"]
    lines = [
        f"- {records.machine(facts)}",
        f"- Python {facts['python']}, {records.versions(facts)}",
    ]
    pools = {
        name: ", ".join(run["thread_pools"]) or "no pool known to threadpoolctl"
        for workload in result["workloads"].values()
        for name, run in workload["contenders"].items()
        if "thread_pools" in run
    }
    alike: dict[str, list[str]] = {}
    for name, text in pools.items():
        alike.setdefault(text, []).append(name)
    return "\n".join([*lines, *(f"- {'; '.join(names)}: {text}" for text, names in alike.items())])
