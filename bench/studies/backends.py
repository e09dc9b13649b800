"""Epochs of this library on each backend, in separate processes."""

import time
from itertools import product

from bench.suite.records import Result
from bench.suite.tables import Table, reasons, seconds, spread
from bench.suite.turns import Announce, Options, Part, call
from bench.suite.workloads import WORKLOADS, backend_of, load, make_epoch

TERMS = (
    "Networks are trained with Adam in float32 on uint8 images that are standardized batch by "
    "batch. Resident data are on the device; streamed data are copied to it batch by batch. IQR is "
    "the interquartile range of the rounds. The backends ran one after the other in separate "
    "processes, not in turns, so comparisons between backends are less reliable."
)
SPECS = ("numpy", "torch:cpu", "jax:cpu", "cupy", "torch:cuda", "jax:cuda")


def measure_epochs(spec: str, rounds: int, images: int | None) -> list[Result]:
    """Return details, median and interquartile range of each network's epochs after a warm-up."""
    backend, found = backend_of(spec), []
    for workload, placement in product(WORKLOADS, ("resident", "streamed")):
        x, y, source = load(workload.data, images or workload.n_images)
        epoch, taken = make_epoch(backend, workload, x, y, placement), []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            epoch()
            taken.append(time.perf_counter() - start)
        got = spread(taken[1:])
        facts = {"workload": workload.title, "placement": placement, "images": len(x)}
        rates = {"images_per_second": len(x) / got.median, "median": got.median, "iqr": got.noise}
        found.append({"backend": spec, **backend.describe(), **facts, "data": source, **rates})
    return found


def measure(options: Options, announce: Announce) -> Result:
    """Return the epochs of each backend, or why it cannot run."""
    found = {}
    for spec in options.chosen(SPECS):
        announce(spec)
        found[spec] = call(measure_epochs, spec, options.rounds, options.images)
    return found


def epochs_of(backends: Result) -> list[Result]:
    """Return the epochs of all backends that ran, grouped by network."""
    epochs = [run for runs in backends.values() if isinstance(runs, list) for run in runs]
    order = [run["workload"] for run in epochs]
    return sorted(epochs, key=lambda run: order.index(run["workload"]))


def tables(backends: Result) -> list[Table]:
    rows = []
    for run in epochs_of(backends):
        names = [run[name] for name in ("workload", "backend", "placement")]
        taken = [seconds(run[name]) for name in ("median", "iqr")]
        images = f"{run['images']:,} {run['data']}"
        rows.append([*names, f"{run['images_per_second']:,.0f}", *taken, images])
    columns = ["network", "backend", "data", "images/s", "median", "IQR", "images"]
    missing = reasons({spec: runs for spec, runs in backends.items() if isinstance(runs, dict)})
    return [Table(PART.title, columns, rows, missing, terms=TERMS)]


def devices(backends: Result) -> list[str]:
    """Return a line for each backend: its library, device and threads."""
    lines = []
    for name, run in {run["backend"]: run for run in epochs_of(backends)}.items():
        keys = [key for key in ("blas", "threads", "cuda", "driver") if key in run]
        parts = [run["library"], run["device"], *(f"{key} {run[key]}" for key in keys)]
        lines.append(f"- `{name}`: {'; '.join(parts)}")
    return lines


PART = Part("Training epochs", measure, tables)
