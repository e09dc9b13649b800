"""`mlp-xp train`, the whole command, beside a script that trains the same network with torch."""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np

from bench.suite.records import ROOT, Result
from bench.suite.roofline import state_bytes
from bench.suite.tables import Table, contender_table, megabytes, seconds
from bench.suite.turns import Announce, Options, Part, peak_bytes, python, slow_path

COMMAND = "import sys; from mlp_xp.cli import main; sys.exit(main())"  # mlp-xp
WIDTHS = (3072, 512, 512, 10)  # Of the default network, and of the script.
SCRIPT = ROOT / "bench" / "peers" / "torch_script.py"
EPOCHS = 12  # The default of `mlp-xp train`.


def measure(options: Options, announce: Announce) -> Result:
    """Return the seconds of each process, of its processors and its training, memory, accuracy."""
    from mlp_xp.datasets import cache_dir

    folder = cache_dir() / "cifar10"
    if not folder.is_dir():
        reason = f"cifar10 is not in {cache_dir()}: mlp-xp data --fetch cifar10"
        return {"runs": {"CIFAR-10": {"cannot_run": reason}}}
    epochs = 2 if options.quick else EPOCHS
    more = ["--epochs", str(epochs)]
    commands = {
        "mlp-xp train": ["-c", COMMAND, "train", "--backend", "numpy", "--out", "run", *more],
        "torch script": [str(SCRIPT), str(folder), "--threads", str(options.threads), *more],
    }
    runs = {}
    for name, command in commands.items():
        announce(f"{name}, once")
        runs[name] = _run(command, options.scratch)
    return {
        "epochs": epochs,
        "state_bytes": state_bytes(WIDTHS, "adam"),
        "data_bytes": np.load(folder / "x_train.npy", "r").nbytes,
        "runs": runs,
    }


def _run(arguments: list[str], scratch: Path) -> Result:
    """Run Python, and return the results it printed or wrote into a run folder."""
    start, used = time.perf_counter(), os.times()
    with (scratch / "output").open("w+") as output:
        process = subprocess.Popen(**python(*arguments), cwd=scratch, stdout=output, stderr=output)
        peak = None
        while process.poll() is None:
            # It never falls, so the last reading is close to the peak.
            peak = peak_bytes(process.pid) or peak
            time.sleep(0.1)
        taken, after = time.perf_counter() - start, os.times()
        output.seek(0)
        text = output.read().strip()
    lines = text.splitlines()
    if process.returncode:
        return {"cannot_run": lines[-1] if lines else f"status {process.returncode}"}
    if slow := slow_path(text):
        return slow
    if arguments[0] == "-c":
        kept = json.loads((scratch / "run" / "config.json").read_text())["result"]
        kept = {"test_accuracy": kept["test_accuracy"], "training_seconds": kept["seconds"]}
    else:
        kept = json.loads(lines[-1])
    # Of the child's threads together: the clock would measure what else the machine does.
    processor = sum(after[2:4]) - sum(used[2:4])
    return {"seconds": taken, "processor_seconds": processor, "peak_bytes": peak, **kept}


def tables(whole: Result) -> list[Table]:
    def cells(name: str, run: Result) -> list[str]:
        both = [seconds(run["seconds"]), seconds(run["training_seconds"])]
        return [*both, f"{run['test_accuracy']:.2%}", megabytes(run)]

    columns = ["run", "total", "training", "test accuracy", "peak MB"]
    epochs = f" for {whole['epochs']} epochs" if "epochs" in whole else ""
    note = f"The default network on CIFAR-10{epochs}: the whole process, once."
    return [contender_table(PART.title, columns, whole["runs"], cells, note=note)]


PART = Part("End to end", measure, tables)
