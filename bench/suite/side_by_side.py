"""Workloads: every contender in turns, beside the roofline; and how an epoch grows."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.suite.contenders import OURS, Entry, entries
from bench.suite.records import Result
from bench.suite.roofline import COPIED, METERS, OPERATIONS, roofline, state_bytes
from bench.suite.spread import ratio, spread
from bench.suite.tables import (
    NOT_COMPARED,
    Table,
    contender_table,
    count,
    median,
    megabytes,
    quartiles,
    reasons,
    seconds,
)
from bench.suite.turns import Announce, Measurement, Options, Part, measure, prepare
from bench.suite.workloads import WORKLOADS, Workload

GROWING = (OURS, "scikit-learn", "torch", "JAX")
BASE = next(w for w in WORKLOADS if w.name == "medium")._replace(n_images=4_096)


def _hidden(*widths: int) -> Workload:
    return BASE._replace(widths=(BASE.widths[0], *widths, BASE.widths[-1]))


# Workloads by the varied value. All else is as in BASE, which is part of each sweep.
SWEEPS = {
    "width of both hidden layers": {n: _hidden(n, n) for n in (64, 256, 512, 2048)},
    "hidden layers of 512": {n: _hidden(*[512] * n) for n in (1, 2, 4, 8)},
    "images in a batch": {n: BASE._replace(batch_size=n) for n in (16, 128, 1024)},
    "images in an epoch": {n: BASE._replace(n_images=n) for n in (1_024, 4_096, 16_384)},
}
GROWTH_ROUNDS = 3


def workload_part(workload: Workload, options: Options) -> Part:
    """Return the part of one workload, with the chosen contenders."""
    own = SideBySide(workload, options)
    return Part(workload.title, own.n_turns, own.measure, lambda run: [workload_table(run)])


class SideBySide:
    """A workload with the chosen contenders and the meters of the roofline."""

    def __init__(self, workload: Workload, options: Options) -> None:
        if options.images is not None:
            size = min(options.images, workload.n_images)
            batch = size if workload.solver == "descent" else workload.batch_size
            workload = workload._replace(n_images=size, batch_size=batch)
        chosen = entries(workload, quick=options.quick)
        self._workload = workload
        self._chosen = {
            name: entry
            for name, entry in chosen.items()
            if options.contenders is None or name in options.contenders
        }
        self._meters = {name: e for name, e in METERS.items() if e.quick or not options.quick}

    def n_turns(self, options: Options) -> int:
        return (len(self._chosen) + len(self._meters)) * (options.rounds + 1)

    def measure(self, options: Options, announce: Announce) -> Result:
        """Return the results of contenders and rate meters, measured in turns."""
        workload = self._workload
        with tempfile.TemporaryDirectory() as scratch:
            facts = prepare(workload, Path(scratch))

            def job(entry: Entry, workload: Workload = workload) -> Measurement:
                return Measurement(entry, workload, Path(scratch), options.threads)

            jobs = {name: job(entry) for name, entry in self._chosen.items()}
            # A meter is run as a training workload and uses only its threads.
            plain = workload._replace(kind="train")
            jobs |= {name: job(entry, plain) for name, entry in self._meters.items()}
            results = measure(jobs, options.rounds, announce)
        machine = {name: results.pop(name) for name in self._meters}
        for name, entry in self._chosen.items():
            results[name] |= {"precision": entry.precision, "data": entry.data}
        medians = {
            name: spread(meter["seconds"]).median
            for name, meter in machine.items()
            if "cannot_run" not in meter
        }
        fastest = min((name for name in medians if name.startswith("product")), key=medians.get)
        product_rate, copy_rate = OPERATIONS / medians[fastest], COPIED / medians["copy"]
        bound = roofline(workload, facts["images"], product_rate, copy_rate)
        rates = {"product": fastest, "product_rate": product_rate, "copy_rate": copy_rate}
        return {
            **workload._asdict(),
            **facts,
            "title": workload.title,
            "steps": -(-facts["images"] // workload.batch_size),
            "state_bytes": state_bytes(workload.widths, workload.solver),
            "machine": machine,
            "floor": {**bound._asdict(), "seconds": bound.seconds, **rates},
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
    note = f"{images} in each {unit}; roofline {bound}"
    steps = (
        f"{count(workload['steps'], 'step')} of {workload['solver']} in an epoch. " if train else ""
    )
    terms = (
        f"{steps}Roofline: {least['operations'] / 1e9:,.3g} GFLOP at "
        f"{least['product_rate'] / 1e9:,.0f} GFLOP/s ({least['product']})"
        + (
            f", {least['bytes'] / 1e9:,.3g} GB at {least['copy_rate'] / 1e9:,.1f} GB/s"
            if train
            else ""
        )
        + f". The images take {workload['pixels'] / 1e6:,.1f} MB as uint8, four times that as "
        f"float32; parameters and optimizer state take {workload['state_bytes'] / 1e6:,.1f} MB."
    )
    return contender_table(workload["title"], columns, runs, cells, note=note, terms=terms)


# --- growth: the cost of an epoch by width, depth, batch size and number of rows ------------------


def growth_turns(options: Options) -> int:
    workloads = {workload for sweep in SWEEPS.values() for workload in sweep.values()}
    return len(workloads) * len(GROWING) * (GROWTH_ROUNDS + 1)


def measure_growth(options: Options, announce: Announce) -> Result:
    """Return the seconds of each contender by varied quantity and value."""
    known: dict[Workload, Result] = {}
    growth: Result = {}
    for title, sweep in SWEEPS.items():
        growth[title] = []
        for value, workload in sweep.items():
            if workload not in known:
                prepare(workload, options.scratch)
                chosen = entries(workload)
                jobs = {
                    name: Measurement(chosen[name], workload, options.scratch, options.threads)
                    for name in GROWING
                }
                known[workload] = measure(jobs, GROWTH_ROUNDS, announce)
            growth[title].append({"value": value, "contenders": known[workload]})
    return growth


def growth_tables(growth: Result) -> list[Table]:
    """Return a table for each varied quantity."""
    found = []
    for title, points in growth.items():
        columns = ["contender", *(f"{point['value']:,}" for point in points)]
        runs = {who: [point["contenders"][who] for point in points] for who in GROWING}
        rows = [[who, *(median(run.get("seconds")) for run in own)] for who, own in runs.items()]
        missing = reasons({who: own[0] for who, own in runs.items()})
        found.append(Table(f"seconds of an epoch by {title}", columns, rows, missing))
    return found


GROWTH = Part("Growth", growth_turns, measure_growth, growth_tables)
