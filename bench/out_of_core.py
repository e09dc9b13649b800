"""The memory of a training on a memory map larger than the memory, on one rank and on four.

The file is one hole: it takes no space on the disk, and is read like any other. Counted is the
memory of each rank from the start of the fit, of what ranks share its part, without the pages of
the file, which the system keeps or drops as it likes.

    python bench/out_of_core.py
    python bench/out_of_core.py --gigabytes 1 --ranks 2
    python bench/out_of_core.py --out bench/history/2026-01-02-out-of-core.json
    python bench/out_of_core.py --page bench/history/2026-01-02-out-of-core.json

``--page`` measures nothing: it writes a record into docs/many-machines.md.
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
from environment import environment
from report import replace_block

from mlp_xp import MLP

PAGE = Path(__file__).parents[1] / "docs" / "many-machines.md"
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
    parser.add_argument("--out", type=Path, help="a JSON file with all that is measured")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"write one to {PAGE.name}")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.file is not None:
        sys.stdout.write(json.dumps(measure(args.file)) + "\n")  # At once: others write too.
        return 0
    if args.page:
        text = section(json.loads(args.page.read_text()))
        page = replace_block(PAGE.read_text(encoding="utf-8"), "out-of-core", text)
        PAGE.write_text(page, encoding="utf-8")
        return 0
    ranks = {str(n): found for n, found in measure_ranks(args.gigabytes, args.ranks)}
    record = {"environment": environment(), "ranks": ranks}
    if args.out:
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(section(record), end="")
    return int(max(beyond(found) for found in ranks.values()) > LIMIT)


def beyond(found: list[dict[str, float]]) -> float:
    """Return the megabytes of the rank that takes most, beyond one copy of the parameters."""
    return max(result["peak_mb"] - result["parameters_mb"] for result in found)


def section(record: dict[str, Any]) -> str:
    """Return a record in words."""
    facts = record["environment"]
    parts = [
        f"{n} rank{'s' if n != '1' else ''} {beyond(found):.0f} MB in {found[0]['seconds']:.0f} s"
        for n, found in record["ranks"].items()
    ]
    size = next(iter(record["ranks"].values()))[0]["file_gb"]
    return (
        f"A map of {size:.1f} GB, network {N_FEATURES}-{HIDDEN[0]}-10, beyond one copy of the "
        f"parameters on each rank at most: {'; '.join(parts)} (mark {LIMIT:.0f} MB). Measured on "
        f"{facts['date']}; {facts['cpu']}, {facts['cpus']} CPUs; Python {facts['python']}, numpy "
        f"{facts['versions']['numpy']}.\n"
    )


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


if __name__ == "__main__":
    sys.exit(main())
