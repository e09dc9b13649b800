"""Epochs of this library on each backend, measured with pytest-benchmark in separate processes."""

import json
import subprocess
import sys

from bench.suite.records import ROOT, Result
from bench.suite.tables import Table, seconds
from bench.suite.turns import Announce, Options, Part

TERMS = (
    "Networks are trained with Adam in float32 on uint8 images that are standardized batch by "
    "batch. Resident data are on the device; streamed data are copied to it batch by batch. IQR is "
    "the interquartile range of the rounds. The backends ran one after the other in separate "
    "processes, not in turns, so comparisons between backends are less reliable."
)


def measure(options: Options, announce: Announce) -> Result:
    """Return details, median and interquartile range of each epoch timed by pytest."""
    found, file = {}, options.scratch / "pytest.json"
    for spec in options.chosen(("numpy", "torch:cpu", "jax:cpu")):
        announce(spec)
        own = [f"--bench-backends={spec}", f"--bench-rounds={options.rounds}", "--benchmark-enable"]
        own += [f"--benchmark-json={file}", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", "-q", "bench", *own]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found[spec] = [
            {**run["extra_info"], "median": run["stats"]["median"], "iqr": run["stats"]["iqr"]}
            for run in json.loads(file.read_text())["benchmarks"]
        ]
    return found


def epochs_of(backends: Result) -> list[Result]:
    """Return the epochs of all backends, grouped by network."""
    epochs = [run for runs in backends.values() for run in runs if "images_per_second" in run]
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
    return [Table(PART.title, columns, rows, terms=TERMS)]


def devices(backends: Result) -> list[str]:
    """Return a line for each backend: its library, device and threads."""
    lines = []
    for name, (run, *_) in backends.items():
        keys = [key for key in ("blas", "threads", "cuda", "driver") if key in run]
        parts = [run["library"], run["device"], *(f"{key} {run[key]}" for key in keys)]
        lines.append(f"- `{name}`: {'; '.join(parts)}")
    return lines


PART = Part("Training epochs", measure, tables)
