"""The whole command `mlp-xp train`, and a script that trains the same network with torch."""

import os
import time

import numpy as np

from bench.suite.records import ROOT, Result
from bench.suite.roofline import state_bytes
from bench.suite.tables import Table, contender_table, megabytes, seconds
from bench.suite.turns import Announce, Options, Part, child

WIDTHS = (3072, 512, 512, 10)  # As in the default recipe and in the script.
EPOCHS = 12  # The default of `mlp-xp train`.
PEAK = "\nfrom bench.suite.turns import peak_bytes; found['peak_bytes'] = peak_bytes()"
COMMAND = f"""
import json, sys
from mlp_xp.cli import main
if status := main():
    sys.exit(status)
found = json.load(open("run/config.json"))["result"]{PEAK}
print(json.dumps(found | {{"training_seconds": found["seconds"]}}))
"""
SCRIPT = f"""
import json, runpy, sys
found = runpy.run_path(sys.argv.pop(1))["main"](){PEAK}
print(json.dumps(found))
"""
KEPT = ("test_accuracy", "training_seconds", "peak_bytes")


def measure(options: Options, announce: Announce) -> Result:
    """Return wall time, processor time, training time, memory and accuracy of each process."""
    from mlp_xp.datasets import cache_dir

    folder = cache_dir() / "cifar10"
    if not folder.is_dir():
        reason = f"cifar10 is not in {cache_dir()}: mlp-xp data --fetch cifar10"
        return {"runs": {"CIFAR-10": {"cannot_run": reason}}}
    epochs = 2 if options.quick else EPOCHS
    script = ROOT / "bench" / "peers" / "torch_script.py"
    commands = {
        "mlp-xp train": [COMMAND, "train", "--backend", "numpy", "--out", "run"],
        "torch script": [SCRIPT, script, folder, "--threads", options.threads],
    }
    runs = {}
    for name, command in commands.items():
        announce(f"{name}, once")
        start, before = time.perf_counter(), os.times()
        found = child("-c", *command, "--epochs", epochs, cwd=options.scratch)
        taken, after = time.perf_counter() - start, os.times()
        runs[name] = found
        if "cannot_run" not in found:
            # The processor time of all threads, because wall time depends on other programs.
            used = sum(after[2:4]) - sum(before[2:4])
            own = {"seconds": taken, "processor_seconds": used}
            runs[name] = {key: found[key] for key in KEPT} | own
    n_bytes = np.load(folder / "x_train.npy", "r").nbytes
    own = {"epochs": epochs, "state_bytes": state_bytes(WIDTHS, "adam"), "data_bytes": n_bytes}
    return {**own, "runs": runs}


def tables(whole: Result) -> list[Table]:
    def cells(name: str, run: Result) -> list[str]:
        both = [seconds(run["seconds"]), seconds(run["training_seconds"])]
        return [*both, f"{run['test_accuracy']:.2%}", megabytes(run)]

    columns = ["run", "total", "training", "test accuracy", "peak MB"]
    epochs = f" for {whole['epochs']} epochs" if "epochs" in whole else ""
    note = f"The default network on CIFAR-10{epochs}. Each whole process ran once."
    return [contender_table(PART.title, columns, whole["runs"], cells, note=note)]


PART = Part("End to end", measure, tables)
