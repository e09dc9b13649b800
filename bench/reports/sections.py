"""The report of a run, in Markdown, and tables of the docs from runs of the suite."""

import math
import re
from operator import itemgetter

from bench.reports.targets import WANTED, fastest_peer, targets
from bench.studies import (
    backends,
    busy,
    c_export,
    compile_times,
    drop_in,
    products,
    ranks,
    search,
    settings,
    shapley,
    startup,
    train_command,
)
from bench.suite import tables
from bench.suite.contenders import OURS
from bench.suite.records import Result, machine, records, versions
from bench.suite.side_by_side import GROWTH, workload_table
from bench.suite.tables import Spread, Table
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
ALL = PARTS | {  # The others run only if --only names them.
    "backends": backends.PART,
    "c_export": c_export.PART,
    "compile_times": compile_times.PART,
    "products": products.PART,
    "out_of_core": ranks.OUT_OF_CORE,
    "ranks": ranks.PART,
    "shapley": shapley.PART,
    "settings_study": settings.PART,  # In a record, "settings" are the settings of the run.
}
PICTURES = {
    "growth": "![Seconds per epoch](growth.png)",
    "settings_study": "![The time of a step in JAX divided by ours](settings.png)",
}
TERMS = (
    "Contenders take turns (A B C A B C ...). Each runs in its own process after a warm-up, with "
    "the same number of threads and the same data in memory: standardized images in float32. The "
    "contender *from uint8* gets the pixels and scales each batch itself. Times are medians of "
    "all turns, with quartiles. *times ours* is the median ratio of the contender's time to the "
    f"time of *{OURS}* in the same turn; above 1, mlp_xp is faster. The roofline is a lower bound "
    "on the time: the matrix products at the speed of a large product, plus the updates at the "
    "speed of a large copy. Both speeds are measured in turns with the contenders. Memory is the "
    "peak of the process, including the interpreter, the libraries and the data. No contender "
    "penalizes weights. *lab* uses SGD with Nesterov momentum; thinc has no momentum, so it "
    "computes less."
)
LOW, SCAN, AUTOCAST = "mlp_xp, NumPy, bf16", "JAX, epoch in a scan", "torch, bfloat16 autocast"


def report(result: Result) -> str:
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
        table, title = workload_table(workload), f"## {workload['title']}"
        summary = f"{len(workload['contenders'])} contenders: times, quartiles, memory"
        sections.append(tables.markdown(table, title, summary))
    for key, part in ALL.items():
        if runs := result.get(key):
            sections += [f"## {part.title}", PICTURES.get(key, ""), part_tables(part, runs)]
    if (found := targets(result)).rows:
        missed = sum(row[1] == "no" for row in found.rows)
        summary = f"{len(found.rows)} targets, {missed} missed"
        sections.append(tables.markdown(found, "## Targets", summary))
    facts = tables.folded("Machine, versions and threads", environment_list(result))
    return tables.paragraphs(*sections, "## Environment", facts) + "\n"


def part_tables(part: Part, runs: Result) -> str:
    """Return the tables of a part, with headings if they differ from the part's title."""
    found = part.tables(runs)
    headings = ["" if table.title == part.title else f"**{table.title}**" for table in found]
    return tables.paragraphs(*map(tables.markdown, found, headings))


def fastest(workload: Result, *, scaled: bool = False) -> dict[tuple[str, str], tuple[str, Spread]]:
    """Return each library's fastest contender in each precision, with its images per second.

    If ``scaled`` is true, only contenders on scaled data are compared.
    """
    found: dict[tuple[str, str], tuple[str, Spread]] = {}
    for name, turns in tables.measured(workload["contenders"]).items():
        if not (scaled and name.endswith("uint8")):
            rate = tables.spread([workload["images"] / taken for taken in turns])
            key = re.split("[ ,]", name)[0], workload["contenders"][name]["precision"]
            if key not in found or rate.median > found[key][1].median:
                found[key] = name, rate
    return found


def _best_times(workload: Result, precision: str = "float32") -> dict[str, float]:
    """Return the time of each library's fastest contender on scaled data, fastest first."""
    ways, images = fastest(workload, scaled=True).items(), workload["images"]
    best = {who: images / rate.median for (who, own), (_, rate) in ways if own == precision}
    return dict(sorted(best.items(), key=itemgetter(1)))


def throughput(workloads: Result) -> str:
    """Return the table of images per second by network and library."""
    rows = []
    for workload in workloads.values():
        best = _best_times(workload)
        rates = {name: f"{workload['images'] / taken:,.0f}" for name, taken in best.items()}
        rates |= {name: f"**{rates[name]}**" for name in [*best][:1]}
        rows.append([workload["title"], *(rates.get(name, "") for name in LIBRARIES)])
    return tables.grid(["network", *LIBRARIES], rows)


def slower(workloads: Result) -> str:
    """Return a sentence about the workloads in which other libraries are faster, with times."""
    found, low = [], []
    for key, workload in workloads.items():
        best, best_low = _best_times(workload), _best_times(workload, "bfloat16")
        own, shown = best.get("mlp_xp", 0.0), tables.seconds
        if ahead := [f"{name} {shown(taken)}" for name, taken in best.items() if taken < own]:
            found.append(f"{workload['title']} ({', '.join(ahead)}, mlp_xp {shown(own)})")
        torch, own = best_low.get("torch", math.inf), min(own, best_low.get("mlp_xp", own))
        if torch < min(own, best.get("torch", 0.0)):
            low.append(f"{key} ({shown(torch)}, mlp_xp {shown(own)})")
    text = f"**Other libraries are faster** in {'; '.join(found) or 'none of these'}."
    return text + (f" In bfloat16, torch is faster in {', '.join(low)}." if low else "")


def speed_table(workloads: Result) -> Table:
    """Return the table with our times, and the peers' times divided by ours."""
    rows = []
    for workload in workloads.values():
        runs, peer = tables.measured(workload["contenders"]), fastest_peer(workload["contenders"])
        own, unit = runs[OURS], "epoch" if workload["kind"] == "train" else "prediction"
        others = ("scikit-learn", peer)
        ratios = [tables.times(runs[x], own, short=True) if x in runs else "" for x in others]
        job = f"{workload['title']}: {unit} of {workload['images']:,}"
        share = f"{workload['floor']['seconds'] / tables.spread(own).median:.0%}"
        rows.append([job, tables.median(own), *ratios, peer or "", share])
    columns = "benchmark, mlp_xp, vs scikit-learn, vs fastest peer, fastest peer, of roofline"
    return Table("speed", columns.split(", "), rows)


def _with_target(theirs: list[float] | None, ours: list[float] | None, target: float | None) -> str:
    """Return a ratio with its target, in bold if it is missed."""
    text = tables.times(theirs, ours, target, short=True)
    return text if target is None or text == tables.NOT_COMPARED else f"{text} of {target:g}"


def processor_tables() -> str:
    """Return a table for each kind of processor, from its newest record."""
    found = {one["environment"].get("kind"): one for _, one in records("workloads", "tiny")}
    kinds = sorted(filter(None, found))
    return tables.paragraphs(*(_processor_table(kind, found[kind]) for kind in kinds))


def _processor_table(kind: str, record: Result) -> str:
    rows = []
    for name, workload in record["workloads"].items():
        runs, peer = tables.measured(workload["contenders"]), fastest_peer(workload["contenders"])
        own, low = runs[OURS], runs.get(LOW)
        wanted, low_wanted = (WANTED["targets"].get(key, {}) for key in (name, f"{name}: {LOW}"))
        cast = _with_target(runs.get(AUTOCAST), low, low_wanted.get(AUTOCAST))
        cells = {
            "network": name,
            "mlp_xp": tables.median(own),
            "fastest float32 peer": f"{peer}, {tables.median(runs[peer])}",
            "times": _with_target(runs[peer], own, wanted.get("fastest")),
            "JAX's scan, times": _with_target(runs.get(SCAN), own, wanted.get(SCAN)),
            "mlp_xp in bf16": tables.median(low),
            "torch's autocast, times": cast,
            "float32, times": _with_target(own, low, low_wanted.get(OURS)),
        }
        rows.append(cells)
    columns = [name for name in rows[0] if any(row[name] != tables.NOT_COMPARED for row in rows)]
    facts, rounds = record["environment"], tables.count(record["settings"]["rounds"], "round")
    note = f"{machine(facts)}, {facts['date'][:10]}, commit {facts['commit']}; medians of {rounds}."
    note += f" {facts['note']}" if "note" in facts else ""
    cells = [[row[name] for name in columns] for row in rows]
    return tables.markdown(Table(kind, columns, cells, note=note), f"### {kind}")


def environment_list(result: Result) -> str:
    """Return a list with the machine, its versions, and each contender's thread pools."""
    facts = result["environment"]
    lines = [f"- {machine(facts)}", f"- Python {facts['python']}, {versions(facts)}"]
    pools = {
        name: ", ".join(run["thread_pools"]) or "no pool known to threadpoolctl"
        for workload in result["workloads"].values()
        for name, run in workload["contenders"].items()
        if "thread_pools" in run
    }
    for text in dict.fromkeys(pools.values()):
        lines.append(f"- {'; '.join(name for name in pools if pools[name] == text)}: {text}")
    return "\n".join(lines)
