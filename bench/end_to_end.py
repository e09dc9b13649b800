"""`mlp-xp train` against a script that trains the same network on the same images with torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from roofline import state_bytes
from turns import Announce, Result, peak_bytes

__all__ = ["measure_end_to_end"]

COMMAND = "import sys; from mlp_xp.cli import main; sys.exit(main())"  # mlp-xp
WIDTHS = (3072, 512, 512, 10)  # Of the default network, and of the script.
SCRIPT = Path(__file__).parent / "peers" / "torch_script.py"


def measure_end_to_end(scratch: Path, epochs: int, threads: int, announce: Announce) -> Result:
    """Return the seconds of each process, of its processors and its training, memory, accuracy."""
    from mlp_xp.datasets import cache_dir  # As in workloads.py.

    folder = cache_dir() / "cifar10"
    if not folder.is_dir():
        return {"cannot_run": f"cifar10 is not in {cache_dir()}: mlp-xp data --fetch cifar10"}
    options = ["--epochs", str(epochs)]
    commands = {
        "mlp-xp train": ["-c", COMMAND, "train", "--backend", "numpy", "--out", "run", *options],
        "torch script": [str(SCRIPT), str(folder), "--threads", str(threads), *options],
    }
    runs = {}
    for name, command in commands.items():
        announce(f"{name}, once")
        runs[name] = run(command, scratch)
    return {
        "epochs": epochs,
        "state_bytes": state_bytes(WIDTHS, "adam"),
        "data_bytes": np.load(folder / "x_train.npy", "r").nbytes,
        "runs": runs,
    }


def run(arguments: list[str], scratch: Path) -> Result:
    """Run Python, and return the results it printed or wrote into a run folder."""
    start, used = time.perf_counter(), os.times()
    with (scratch / "output").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=scratch, stdout=output, stderr=output
        )
        peak = None
        while process.poll() is None:
            # It never falls, so the last reading is close to the peak.
            peak = peak_bytes(process.pid) or peak
            time.sleep(0.1)
        seconds, after = time.perf_counter() - start, os.times()
        output.seek(0)
        lines = output.read().strip().splitlines()
    if process.returncode:
        return {"cannot_run": lines[-1] if lines else f"status {process.returncode}"}
    config = scratch / "run" / "config.json"
    if arguments[0] == "-c":
        kept = json.loads(config.read_text())["result"]
        kept = {"test_accuracy": kept["test_accuracy"], "training_seconds": kept["seconds"]}
    else:
        kept = json.loads(lines[-1])
    # Of the child's threads together: the clock would measure what else the machine does.
    processor = sum(after[2:4]) - sum(used[2:4])
    return {"seconds": seconds, "processor_seconds": processor, "peak_bytes": peak, **kept}
