"""Training with several ranks: speed compared with one process, and memory on a memory map."""

import os
import sysconfig
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.suite.records import Result, measured_on
from bench.suite.tables import Table, count, median, times
from bench.suite.turns import Announce, Options, Part, call, in_turns, prepare, threads_of
from bench.suite.workloads import WORKLOADS
from mlp_xp import MLP

MEDIUM = next(workload for workload in WORKLOADS if workload.name == "medium")
N_IMAGES, BATCHES = 10_240, (128, 1_024)
LIMIT = 300.0  # The maximum memory in megabytes, without the parameters.
MAP_RANKS = (1, 4)
MAP_BYTES, N_FEATURES = 6e9, 3072
HIDDEN = (128,)
SETTINGS: Result = {"batch_size": 1024, "learning_rate": "cosine", "max_iter": 1, "random_state": 0}
EVERY = 0.02  # Seconds between two measurements of memory.


ONE, TWO, PLAIN = "1 process, 1 thread", "2 ranks, 1 thread each", "2 ranks, sums by MPI alone"
THREADS = "1 process, 2 threads"
# The number of ranks, the number of threads per rank, and whether ranks share memory.
CONTENDERS = {
    ONE: (1, 1, True),
    TWO: (2, 1, True),
    "4 ranks, 1 thread each": (4, 1, True),
    PLAIN: (2, 1, False),
    THREADS: (1, 2, True),
}
# Batch size, the contender to compare two ranks with, and the target speedup.
MARKS = ((1_024, ONE, 1.8), (128, ONE, 1.3), (1_024, THREADS, 0.9), (128, PLAIN, 1.0))


def run_ranks(ranks: int, threads: int, function: Callable[..., Any], *given: object) -> list[Any]:
    """Return the result of a function of this file on each rank."""
    mpiexec = [str(Path(sysconfig.get_path("scripts"), "mpiexec")), "-n", str(ranks)]
    launcher = mpiexec if ranks > 1 else ()
    found = call(function, *given, launcher=launcher, **threads_of(threads))
    if isinstance(found, dict) and "cannot_run" in found:
        raise RuntimeError(found["cannot_run"])
    return found if launcher else [found]


def time_epoch(folder: str, batch: int, shares: bool) -> float:
    """Return the seconds of an epoch on a rank or in a single process, after a warm-up epoch."""
    from mlp_xp.distributed import _mpi

    if not shares:
        _mpi.shared_memory = lambda mpi, comm: None
    x, y = np.load(Path(folder, "scaled.npy")), np.load(Path(folder, "labels.npy"))
    is_alone = "PMI_SIZE" not in os.environ  # mpiexec sets this.
    more = {} if is_alone else {"distributed": "mpi"}
    model = MLP(MEDIUM.widths[1:-1], alpha=0.0, batch_size=batch, random_state=0, **more)
    for _ in range(3):
        model.partial_fit(x, y, classes=np.arange(MEDIUM.widths[-1]))
    return min(record.seconds for record in model.history_[1:])


def measure(options: Options, announce: Announce) -> Result:
    """Return the seconds of an epoch of each contender by batch size."""
    data = prepare(MEDIUM._replace(n_images=N_IMAGES), options.scratch)

    def act(batch: int, ranks: int, threads: int, shares: bool) -> float:
        return max(run_ranks(ranks, threads, time_epoch, str(options.scratch), batch, shares))

    epochs = {}
    for batch in BATCHES:
        turns = {name: partial(act, batch, *own) for name, own in CONTENDERS.items()}
        epochs[str(batch)] = in_turns(turns, options.rounds, announce)
    facts = {"network": list(MEDIUM.widths), "images": N_IMAGES, "data": data["data"]}
    return {**facts, "epochs": epochs}


def tables(result: Result) -> list[Table]:
    rows = []
    for batch, other, least in MARKS:
        runs = result["epochs"][str(batch)]
        cells = [median(runs[TWO]), other, median(runs[other]), f"{least:g}"]
        rows.append([TWO, f"{batch:,}", *cells, times(runs[other], runs[TWO], least)])
    columns = ["run", "batch", "epoch", "compared with", "epoch", "target", "speedup"]
    note = (
        f"An epoch has {result['images']:,} images ({result['data']}); the network is "
        f"{'-'.join(map(str, result['network']))} with relu and Adam, in float32 on NumPy. Times "
        f"are medians of {len(result['epochs'][str(BATCHES[0])][ONE])} rounds in turns. Speedups "
        "are computed round by round, with quartiles; speedups below the target are bold."
    )
    return [Table(PART.title, columns, rows, note=note)]


def measure_maps(options: Options, announce: Announce) -> Result:
    """Return the measurements of each rank on a file of zeros, by number of ranks."""
    path, found = str(options.scratch / "x.npy"), {}
    # The file is sparse: it uses no disk space, but can be read like any other file.
    shape = int(MAP_BYTES) // (4 * N_FEATURES), N_FEATURES
    np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for n in MAP_RANKS:
        announce(f"ranks: {n}")
        found[str(n)] = run_ranks(n, 1, take_memory, path)
    return found


def take_memory(file: str) -> dict[str, float]:
    """Return the memory of one rank from the start of a fit on a memory map, and the time."""
    x = np.load(file, mmap_mode="r")
    y = np.random.default_rng(0).integers(0, 10, len(x))
    # Import everything and start the threads first.
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
    facts = {"file_gb": Path(file).stat().st_size / 1e9, "seconds": seconds}
    return {**facts, "peak_mb": (peak - before) / 1e6, "parameters_mb": n_bytes / 1e6}


def own_memory() -> int:
    """Return the bytes of this process and its part of shared memory, without mapped files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    kinds = "Pss_Anon:", "Pss_Shmem:"
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(kinds))


def map_tables(ranks: Result) -> list[Table]:
    rows = []
    for n, runs in ranks.items():  # The memory without one copy of the parameters per rank.
        memory = max(run["peak_mb"] - run["parameters_mb"] for run in runs)
        rows.append([n, f"{memory:.0f} MB", f"{runs[0]['seconds']:.0f} s"])
    size = next(iter(ranks.values()))[0]["file_gb"]
    note = (
        f"The memory map has {size:.1f} GB, and the network is {N_FEATURES}-{HIDDEN[0]}-10. Memory "
        "is the maximum over the ranks, without one copy of the parameters per rank; the target is "
        f"at most {LIMIT:.0f} MB."
    )
    return [Table(OUT_OF_CORE.title, ["ranks", "memory", "time"], rows, note=note)]


def section(record: Result) -> str:
    """Return a paragraph with the figures of a record of memory maps."""
    (table,) = map_tables(record["out_of_core"])
    rows = [f"{count(int(n), 'rank')}: {memory}, {taken}" for n, memory, taken in table.rows]
    return f"{table.note} {'; '.join(rows)}. {measured_on(record['environment'])}"


PART = Part("Ranks", measure, tables)
OUT_OF_CORE = Part("Out of core", measure_maps, map_tables)
