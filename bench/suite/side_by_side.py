"""Times of all contenders and the roofline by workload, and the growth of the time per epoch."""

import tempfile
from pathlib import Path

from bench.suite.contenders import OURS, entries
from bench.suite.records import Result
from bench.suite.roofline import METERS, roofline, state_bytes
from bench.suite.tables import (
    NOT_COMPARED,
    Table,
    contender_table,
    count,
    median,
    megabytes,
    quartiles,
    ratio,
    reasons,
    seconds,
    spread,
)
from bench.suite.turns import Announce, Measurement, Options, Part, measure, prepare
from bench.suite.workloads import WORKLOADS, Workload

GROWING = (OURS, "scikit-learn", "torch", "JAX")
BASE = next(w for w in WORKLOADS if w.name == "medium")._replace(n_images=4_096)


def _hidden(*widths: int) -> Workload:
    return BASE._replace(widths=(BASE.widths[0], *widths, BASE.widths[-1]))


# Workloads by the varied value. All other values are from BASE, which is part of each sweep.
SWEEPS = {
    "width of both hidden layers": {n: _hidden(n, n) for n in (64, 256, 512, 2048)},
    "hidden layers of 512": {n: _hidden(*[512] * n) for n in (1, 2, 4, 8)},
    "images in a batch": {n: BASE._replace(batch_size=n) for n in (16, 128, 1024)},
    "images in an epoch": {n: BASE._replace(n_images=n) for n in (1_024, 4_096, 16_384)},
}
GROWTH_ROUNDS = 3


def workload_part(workload: Workload) -> Part:
    """Return the part for one workload."""

    def measure_it(options: Options, announce: Announce) -> Result:
        return measure_workload(workload, options, announce)

    return Part(workload.title, measure_it, lambda run: [workload_table(run)])


def measure_workload(workload: Workload, options: Options, announce: Announce) -> Result:
    """Return the results of the chosen contenders and of rate meters, measured in turns."""
    if options.images is not None:
        size = min(options.images, workload.n_images)
        batch = size if workload.solver == "descent" else workload.batch_size
        workload = workload._replace(n_images=size, batch_size=batch)
    chosen = {
        name: entry
        for name, entry in entries(workload, quick=options.quick).items()
        if options.contenders is None or name in options.contenders
    }
    with tempfile.TemporaryDirectory() as scratch:
        facts = prepare(workload, Path(scratch))
        jobs = {
            name: Measurement(entry, workload, Path(scratch), options.threads)
            for name, entry in chosen.items()
        }
        for name, entry in METERS.items():
            if entry.quick or not options.quick:
                # Meters run like training workloads, but use only the number of threads.
                plain = workload._replace(kind="train")
                jobs[name] = Measurement(entry, plain, Path(scratch), options.threads)
        results = measure(jobs, options.rounds, announce)
    machine = {name: results.pop(name) for name in [*results] if name in METERS}
    for name, entry in chosen.items():
        results[name] |= {"precision": entry.precision, "data": entry.data}
    return {
        **workload._asdict(),
        **facts,
        "title": workload.title,
        "steps": -(-facts["images"] // workload.batch_size),
        "state_bytes": state_bytes(workload.widths, workload.solver),
        "machine": machine,
        "floor": roofline(workload, facts["images"], machine),
        "contenders": results,
    }


def workload_table(workload: Result) -> Table:
    """Return the table of a workload's contenders."""
    least, runs, train = workload["floor"], workload["contenders"], workload["kind"] == "train"
    unit, bound = "epoch" if train else "call", seconds(workload["floor"]["seconds"])
    ours = runs.get(OURS, {}).get("seconds")

    def cells(name: str, run: Result) -> list[str]:
        own = spread(run["seconds"]).median
        return [
            seconds(own),
            f"{ratio(run['seconds'], ours).median:.2f}" if ours else NOT_COMPARED,
            f"{workload['images'] / own:,.0f}",
            f"{least['seconds'] / own:.0%}",
            megabytes(run),
            quartiles(run["seconds"]),
        ]

    columns = ["contender", unit, "times ours", "images/s", "of roofline", "peak MB", "quartiles"]
    images = f"{count(workload['images'], 'image')} of {workload['data']}"
    steps, copied = "", ""
    if train:
        steps = f"An epoch has {count(workload['steps'], 'step')} of {workload['solver']}. "
        copied = f", {least['bytes'] / 1e9:,.3g} GB at {least['copy_rate'] / 1e9:,.1f} GB/s"
    terms = (
        f"{steps}Roofline: {least['operations'] / 1e9:,.3g} GFLOP at "
        f"{least['product_rate'] / 1e9:,.0f} GFLOP/s ({least['product']}){copied}. The images need "
        f"{workload['pixels'] / 1e6:,.1f} MB as uint8 and four times that as float32; parameters "
        f"and optimizer state need {workload['state_bytes'] / 1e6:,.1f} MB."
    )
    note = f"{images} per {unit}; roofline {bound}."
    return contender_table(workload["title"], columns, runs, cells, note=note, terms=terms)


# --- growth: the cost of an epoch by width, depth, batch size and number of rows ------------------


def measure_growth(options: Options, announce: Announce) -> Result:
    """Return the seconds of each contender by varied quantity and value."""
    known: dict[Workload, Result] = {}
    for workload in (workload for sweep in SWEEPS.values() for workload in sweep.values()):
        if workload not in known:
            prepare(workload, options.scratch)
            jobs = {
                name: Measurement(entry, workload, options.scratch, options.threads)
                for name, entry in entries(workload).items()
                if name in GROWING
            }
            known[workload] = measure(jobs, GROWTH_ROUNDS, announce)
    return {
        title: [{"value": value, "contenders": known[w]} for value, w in sweep.items()]
        for title, sweep in SWEEPS.items()
    }


def growth_tables(growth: Result) -> list[Table]:
    """Return a table for each varied quantity."""
    found = []
    for title, points in growth.items():
        columns = ["contender", *(f"{point['value']:,}" for point in points)]
        runs = {who: [point["contenders"][who] for point in points] for who in GROWING}
        rows = [[who, *(median(run.get("seconds")) for run in own)] for who, own in runs.items()]
        missing = reasons({who: own[0] for who, own in runs.items()})
        found.append(Table(f"seconds per epoch by {title}", columns, rows, missing))
    return found


GROWTH = Part("Growth", measure_growth, growth_tables)
