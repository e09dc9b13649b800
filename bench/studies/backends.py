"""Epochs of this library on each backend, each in its process, one after the other."""

import json
import sys
import time
from typing import Any

from bench.suite.records import Result
from bench.suite.tables import Table, reasons, seconds, spread
from bench.suite.turns import Announce, Options, Part, child
from bench.suite.workloads import WORKLOADS, Workload, load, make_epoch
from mlp_xp.backends import Backend, get_backend

TERMS = (
    "Adam in float32 on uint8 images, standardized batch by batch. Resident data are on the device "
    "as a whole; streamed data are sent a batch at a time. IQR is the interquartile range of the "
    "rounds. Each backend ran in its own process, one after the other, not in turns: compare "
    "backends with that in mind."
)


def measure(options: Options, announce: Announce) -> Result:
    """Return the epochs of each backend, or why it cannot run."""
    found = {}
    for spec in options.chosen(("numpy", "torch:cpu", "jax:cpu", "cupy", "torch:cuda", "jax:cuda")):
        announce(spec)
        runs = child("-m", __spec__.name, spec, options.rounds, options.images or 0)
        # Backends that are asked for by name are listed with the reason; others are left out.
        if options.cases or isinstance(runs, list):
            found[spec] = runs
    return found


def time_epochs(spec: str, rounds: int, images: int) -> list[Result]:
    """Return summary, median and interquartile range of each network's epochs on a backend."""
    name, _, device = spec.partition(":")
    backend = get_backend(name, device or None)
    own = {"backend": spec, **backend.describe()}
    return [
        own | _time(backend, workload, images, rounds, placement)
        for workload in WORKLOADS
        for placement in ("resident", "streamed")
    ]


def _time(backend: Backend, workload: Workload, images: int, rounds: int, placement: Any) -> Result:
    x, y, source = load(workload.data, images or workload.n_images)
    epoch, times = make_epoch(backend, workload, x, y, placement), []
    for _ in range(rounds + 1):  # The first compiles and warms up.
        start = time.perf_counter()
        epoch()
        times.append(time.perf_counter() - start)
    got = spread(times[1:])
    return {
        "workload": workload.title,
        "placement": placement,
        "images": len(x),
        "data": source,
        "images_per_second": len(x) / got.median,
        "median": got.median,
        "iqr": got.noise,
    }


def epochs_of(backends: Result) -> list[Result]:
    """Return the epochs of all backends, grouped by network."""
    runs = (run for runs in backends.values() if isinstance(runs, list) for run in runs)
    epochs = [run for run in runs if "images_per_second" in run]
    order = list(dict.fromkeys(run["workload"] for run in epochs))
    return sorted(epochs, key=lambda run: order.index(run["workload"]))


def tables(backends: Result) -> list[Table]:
    rows = [
        [
            *(run[name] for name in ("workload", "backend", "placement")),
            f"{run['images_per_second']:,.0f}",
            seconds(run["median"]),
            seconds(run["iqr"]),
            f"{run['images']:,} {run['data']}",
        ]
        for run in epochs_of(backends)
    ]
    columns = ["network", "backend", "data", "images/s", "median", "IQR", "images"]
    lost = {name: runs for name, runs in backends.items() if isinstance(runs, dict)}
    return [Table(PART.title, columns, rows, reasons(lost), terms=TERMS)]


def devices(backends: Result) -> list[str]:
    """Return a line for each backend: its library, device and threads."""
    lines = []
    for name, (run, *_) in backends.items():
        keys = [key for key in ("blas", "threads", "cuda", "driver") if key in run]
        parts = [run["library"], run["device"], *(f"{key} {run[key]}" for key in keys)]
        lines.append(f"- `{name}`: {'; '.join(parts)}")
    return lines


PART = Part("Training epochs", measure, tables)

if __name__ == "__main__":  # One backend.
    print(json.dumps(time_epochs(sys.argv[1], *map(int, sys.argv[2:]))))
