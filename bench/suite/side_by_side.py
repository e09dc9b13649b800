"""Times of all contenders and the roofline by workload, and the growth of the time per epoch."""

from bench.suite import tables
from bench.suite.contenders import OURS, Entry, entries
from bench.suite.records import Result
from bench.suite.roofline import METERS, roofline, state_bytes
from bench.suite.tables import Table, seconds, spread
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


def measure_workload(workload: Workload, options: Options, announce: Announce) -> Result:
    """Return the results of the chosen contenders and of rate meters, measured in turns."""
    if options.images is not None:
        size = min(options.images, workload.n_images)
        batch = size if workload.solver == "descent" else workload.batch_size
        workload = workload._replace(n_images=size, batch_size=batch)
    every = entries(workload, quick=options.quick)
    chosen = {name: every[name] for name in options.listed(every)}
    meters = {name: one for name, one in METERS.items() if one.quick or not options.quick}
    facts, results = _measure(workload, chosen | meters, options, announce)
    machine = {name: results.pop(name) for name in meters}
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


def _measure(
    workload: Workload, chosen: dict[str, Entry], options: Options, announce: Announce
) -> tuple[Result, Result]:
    """Return details of the data, and the result of each contender."""
    facts, own = prepare(workload, options.scratch), (workload, options.scratch, options.threads)
    jobs = {name: Measurement(entry, *own) for name, entry in chosen.items()}
    return facts, measure(jobs, options.rounds, announce)


def workload_table(workload: Result) -> Table:
    least, runs, train = workload["floor"], workload["contenders"], workload["kind"] == "train"
    unit, ours = "epoch" if train else "call", tables.measured(runs).get(OURS)

    def cells(name: str, run: Result) -> list[str]:
        own = spread(run["seconds"]).median
        ratio, rate = tables.times(run["seconds"], ours, short=True), workload["images"] / own
        share = f"{least['seconds'] / own:.0%}"
        memory, noise = tables.megabytes(run), tables.quartiles(run["seconds"])
        return [seconds(own), ratio, f"{rate:,.0f}", share, memory, noise]

    columns = ["contender", unit, "times ours", "images/s", "of roofline", "peak MB", "quartiles"]
    steps, copied = "", ""
    if train:
        steps = f"An epoch has {tables.count(workload['steps'], 'step')} of {workload['solver']}. "
        copied = f", {least['bytes'] / 1e9:,.3g} GB at {least['copy_rate'] / 1e9:,.1f} GB/s"
    terms = (
        f"{steps}Roofline: {least['operations'] / 1e9:,.3g} GFLOP at "
        f"{least['product_rate'] / 1e9:,.0f} GFLOP/s ({least['product']}){copied}. The images need "
        f"{workload['pixels'] / 1e6:,.1f} MB as uint8 and four times that as float32; parameters "
        f"and optimizer state need {workload['state_bytes'] / 1e6:,.1f} MB."
    )
    images = f"{tables.count(workload['images'], 'image')} of {workload['data']}"
    note = f"{images} per {unit}; roofline {seconds(least['seconds'])}."
    return tables.contender_table(workload["title"], columns, runs, cells, note=note, terms=terms)


def measure_growth(options: Options, announce: Announce) -> Result:
    """Return the seconds of each contender by varied quantity and value."""
    known: dict[Workload, Result] = {}
    options = options._replace(rounds=3)
    for workload in dict.fromkeys(w for sweep in SWEEPS.values() for w in sweep.values()):
        chosen = {name: entry for name, entry in entries(workload).items() if name in GROWING}
        known[workload] = _measure(workload, chosen, options, announce)[1]
    return {
        title: [{"value": value, "contenders": known[w]} for value, w in sweep.items()]
        for title, sweep in SWEEPS.items()
    }


def growth_tables(growth: Result) -> list[Table]:
    found = []
    for title, points in growth.items():
        columns = ["contender", *(f"{point['value']:,}" for point in points)]
        runs = [point["contenders"] for point in points]
        rows = [[who, *(tables.median(run[who].get("seconds")) for run in runs)] for who in GROWING]
        missing = tables.reasons({who: runs[0][who] for who in GROWING})
        found.append(Table(f"seconds per epoch by {title}", columns, rows, missing))
    return found


GROWTH = Part("Growth", measure_growth, growth_tables)
