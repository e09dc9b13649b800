"""The memory of a training on a memory map larger than the memory, on one rank and on four.

The file is one hole: it takes no space on the disk, and is read like any other. Counted is the
anonymous memory of each rank from the start of the fit, without the pages of the file, which the
system keeps or drops as it likes.

    python bench/out_of_core.py
    python bench/out_of_core.py --gigabytes 1 --ranks 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp import MLP

LIMIT = 300.0  # Megabytes beyond the parameters.
N_FEATURES = 3072
HIDDEN = (128,)
SETTINGS: dict[str, Any] = {
    "batch_size": 1024,
    "learning_rate": "cosine",
    "max_iter": 1,
    "random_state": 0,
}
EVERY = 0.02  # Seconds between two measurements.


def main() -> int:
    """Measure, print, and return 1 if a rank needs more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=6.0)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.file is not None:
        print(json.dumps(measure(args.file)), flush=True)
        return 0
    largest = 0.0
    for n, found in measure_ranks(args.gigabytes, args.ranks):
        for rank, result in enumerate(found):
            beyond = result["peak_mb"] - result["parameters_mb"]
            largest = max(largest, beyond)
            print(
                f"{n} ranks, rank {rank}: {result['file_gb']:.2f} GB, {result['seconds']:.0f} s, "
                f"{result['peak_mb']:.0f} MB, {beyond:.0f} without one copy of the parameters "
                f"(at most {LIMIT:.0f})"
            )
    return int(largest > LIMIT)


def measure_ranks(gigabytes: float, ranks: list[int]) -> Any:
    """Yield each number of ranks, and what each of them measures on a file of zeros."""
    n_rows = int(gigabytes * 1e9) // (4 * N_FEATURES)
    launcher = Path(sysconfig.get_path("scripts"), "mpiexec")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, N_FEATURES))
        for n in ranks:
            command = [launcher, "-n", str(n), sys.executable, __file__, "--file", path]
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            done = subprocess.run(
                command, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=True
            )
            yield n, [json.loads(line) for line in done.stdout.splitlines()]


def measure(path: Path) -> dict[str, float]:
    """Return what one rank of a fit takes."""
    x = np.load(path, mmap_mode="r")
    y = np.random.default_rng(0).integers(0, 10, len(x))
    # Everything is imported, and threads have started.
    MLP(HIDDEN, **SETTINGS, distributed="mpi").fit(np.zeros((2048, N_FEATURES), "f4"), y[:2048])
    model = MLP(HIDDEN, **SETTINGS, distributed="mpi")
    before, peak = anonymous(), 0
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(EVERY):
            peak = max(peak, anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    model.fit(x, y)
    seconds = time.perf_counter() - start
    is_over.set()
    thread.join()
    n_bytes = sum(array.nbytes for array in (*model.coefs_, *model.intercepts_))
    return {
        "file_gb": path.stat().st_size / 1e9,
        "seconds": seconds,
        "peak_mb": (peak - before) / 1e6,
        "parameters_mb": n_bytes / 1e6,
    }


def anonymous() -> int:
    """Return the bytes of this process that no file holds."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


if __name__ == "__main__":
    sys.exit(main())
