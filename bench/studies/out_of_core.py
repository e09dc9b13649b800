"""The memory of a training on a memory map larger than the memory, on one rank and on four.

The file is one hole: it takes no space on the disk, and is read like any other. Counted is the
memory of each rank from the start of the fit, with its part of what ranks share, without the pages
of the file, which the system keeps or drops as it likes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.suite.records import Result, measured_on
from bench.suite.tables import Table
from bench.suite.turns import Announce, Options, Part
from mlp_xp import MLP

LIMIT = 300.0  # Megabytes beyond the parameters.
RANKS = (1, 4)
BYTES = 6e9
N_FEATURES = 3072
HIDDEN = (128,)
SETTINGS: dict[str, Any] = {
    "batch_size": 1024,
    "learning_rate": "cosine",
    "max_iter": 1,
    "random_state": 0,
}
EVERY = 0.02  # Seconds between two measurements.


def measure(options: Options, announce: Announce) -> Result:
    """Return what each rank measures on a file of zeros, by their number."""
    path, found = options.scratch / "x.npy", {}
    shape = int(BYTES) // (4 * N_FEATURES), N_FEATURES
    np.lib.format.open_memmap(path, "w+", np.float32, shape)
    launcher = Path(sysconfig.get_path("scripts"), "mpiexec")
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for n in RANKS:
        announce(f"ranks: {n}")
        command = [launcher, "-n", str(n), sys.executable, __file__, path]
        done = subprocess.run(
            command, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=True
        )
        found[str(n)] = [json.loads(line) for line in done.stdout.splitlines()]
    return found


def measure_rank(path: Path) -> dict[str, float]:
    """Return what one rank of a fit takes."""
    x = np.load(path, mmap_mode="r")
    y = np.random.default_rng(0).integers(0, 10, len(x))
    # Everything is imported, and threads have started.
    MLP(HIDDEN, **SETTINGS, distributed="mpi").fit(np.zeros((2048, N_FEATURES), "f4"), y[:2048])
    model = MLP(HIDDEN, **SETTINGS, distributed="mpi")
    before, peak = own_memory(), 0
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(EVERY):
            peak = max(peak, own_memory())

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


def own_memory() -> int:
    """Return the bytes of this process that no file on a disk holds, and its part of shared ones.

    Memory that ranks share is a file without a disk.
    """
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    kinds = "Pss_Anon:", "Pss_Shmem:"
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(kinds))


def beyond(found: list[dict[str, float]]) -> float:
    """Return the megabytes of the rank that takes most, beyond one copy of the parameters."""
    return max(result["peak_mb"] - result["parameters_mb"] for result in found)


def tables(ranks: Result) -> list[Table]:
    rows = [[n, f"{beyond(own):.0f} MB", f"{own[0]['seconds']:.0f} s"] for n, own in ranks.items()]
    size = next(iter(ranks.values()))[0]["file_gb"]
    note = (
        f"A map of {size:.1f} GB, network {N_FEATURES}-{HIDDEN[0]}-10; at most, beyond one copy of "
        f"the parameters on each rank; mark {LIMIT:.0f} MB."
    )
    return [Table(PART.title, ["ranks", "memory", "time"], rows, note=note)]


def section(record: Result) -> str:
    """Return the figures of a record in words."""
    (table,) = tables(record["out_of_core"])
    parts = [
        f"{memory} in {taken} on {n} rank{'s' * (n != '1')}" for n, memory, taken in table.rows
    ]
    return f"{table.note} {'; '.join(parts)}. {measured_on(record['environment'])}"


PART = Part("Out of core", lambda options: len(RANKS), measure, tables)

if __name__ == "__main__":  # A rank; its line at once, since others write too.
    sys.stdout.write(json.dumps(measure_rank(Path(sys.argv[1]))) + "\n")
