"""One training on several ranks beside one process, in turns; and the rates of steps and sums."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.suite.records import Result, usable_cpus
from bench.suite.spread import spread
from bench.suite.tables import Table, median, times
from bench.suite.turns import PAUSE, POOLS, Announce, Options, Part, peak_bytes, prepare
from bench.suite.workloads import WORKLOADS

MEDIUM = next(workload for workload in WORKLOADS if workload.name == "medium")
N_IMAGES = 10_240
BATCHES = (128, 1_024)
# Batches of one process, from which the model of many machines has the time of a step.
RATES = (32, 64, 128, 256, 512, 1_024)
# Bytes that are summed: the latency, and the gradients.
SUMS = (4, 1 << 16, 1 << 20, 4 * sum((a + 1) * b for a, b in pairwise(MEDIUM.widths)))


class Contender(NamedTuple):
    """The number of ranks of a training, and of the threads of each; whether they share memory."""

    ranks: int
    threads: int
    shares: bool = True


ONE, TWO, FOUR = Contender(1, 1), Contender(2, 1), Contender(4, 1)
PLAIN = Contender(2, 1, shares=False)
THREADS = Contender(1, 2)
CONTENDERS = {
    "1 process, 1 thread": ONE,
    "2 ranks, 1 thread each": TWO,
    "4 ranks, 1 thread each": FOUR,
    "2 ranks, sums by MPI alone": PLAIN,
    "1 process, 2 threads": THREADS,
}
NAMES = {contender: name for name, contender in CONTENDERS.items()}


class Mark(NamedTuple):
    """The least speed of one contender beside another one, at a batch size."""

    batch: int
    contender: Contender
    beside: Contender
    least: float


MARKS = (
    Mark(1_024, TWO, ONE, 1.8),
    Mark(128, TWO, ONE, 1.3),
    Mark(1_024, TWO, THREADS, 0.9),
    Mark(128, TWO, PLAIN, 1.0),
)


# --- a rank ---------------------------------------------------------------------------------------


def serve(address: str, folder: Path, ranks: int, shares: bool) -> None:
    """Run the tasks of the parent until it closes the pipe; idle ranks sleep."""
    from mlp_xp import MLPClassifier
    from mlp_xp.distributed import _mpi

    if not shares:
        _mpi.shared_memory = lambda mpi, comm: None

    x, y = np.load(folder / "scaled.npy"), np.load(folder / "labels.npy")
    options = {"distributed": "mpi"} if ranks > 1 else {}
    models: dict[int, Any] = {}

    def train(batch: int) -> float:
        if batch not in models:
            models[batch] = MLPClassifier(
                MEDIUM.widths[1:-1],
                alpha=0.0,
                batch_size=batch,
                random_state=0,
                **options,
            )
        models[batch].partial_fit(x, y, classes=np.arange(MEDIUM.widths[-1]))
        return float(models[batch].history_[-1].seconds)

    def add(n_bytes: int) -> float:
        from mlp_xp.distributed import get_communicator

        communicator, numbers = get_communicator("mpi"), np.ones(n_bytes // 4, np.float32)
        numbers *= 0.0
        times = []
        for _ in range(50):
            communicator.barrier()
            start = time.perf_counter()
            communicator.sum([numbers])
            times.append(time.perf_counter() - start)
        return spread(times).median

    tasks: dict[str, Callable[[int], float]] = {"train": train, "sum": add}
    with Client(address, authkey=os.environ["BENCH_KEY"].encode()) as pipe:
        while True:
            try:
                task, size = pipe.recv()
            except EOFError:
                return
            pipe.send((tasks[task](size), peak_bytes()))


# --- the parent -----------------------------------------------------------------------------------


class Ranks:
    """The processes of a contender, which wait for tasks."""

    def __init__(self, contender: Contender, folder: Path) -> None:
        self._contender, self._folder = contender, folder

    def __enter__(self) -> Ranks:
        contender, key = self._contender, secrets.token_hex()
        address = str(self._folder / "-".join(map(str, contender)))
        with Listener(address, authkey=key.encode()) as listener:
            command = [sys.executable, __file__, address, str(self._folder)]
            command += [str(contender.ranks), str(int(contender.shares))]
            if contender.ranks > 1:
                command = ["mpiexec", "-n", str(contender.ranks), *command]
            pools = {f"{pool}_NUM_THREADS": str(contender.threads) for pool in POOLS}
            self._process = subprocess.Popen(command, env=os.environ | pools | {"BENCH_KEY": key})
            self._pipes: list[Connection] = [listener.accept() for _ in range(contender.ranks)]
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        self._process.wait(30)

    def run(self, task: str, size: int) -> tuple[float, int]:
        """Return the seconds of the slowest rank, and the most memory of one."""
        for pipe in self._pipes:
            pipe.send((task, size))
        answers = [pipe.recv() for pipe in self._pipes]
        return max(answer[0] for answer in answers), max(answer[1] or 0 for answer in answers)


def measure(options: Options, announce: Announce) -> Result:
    """Return the seconds of an epoch of each contender by batch size, of steps, and of sums."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        workload = MEDIUM._replace(n_images=N_IMAGES)
        data = prepare(workload, folder)
        groups = {
            name: stack.enter_context(Ranks(contender, folder))
            for name, contender in CONTENDERS.items()
        }
        epochs: Result = {str(batch): {name: [] for name in groups} for batch in BATCHES}
        memory = dict.fromkeys(groups, 0)
        for number in range(-1, options.rounds):  # The first warms up.
            announce(f"round {number + 1} of {options.rounds}")
            for batch in BATCHES:
                for name, group in groups.items():
                    time.sleep(PAUSE)
                    taken, peak = group.run("train", batch)
                    memory[name] = max(memory[name], peak)
                    if number >= 0:
                        epochs[str(batch)][name].append(taken)
        announce("steps of one process, and sums")
        one, threads = groups[NAMES[ONE]], groups[NAMES[THREADS]]
        steps = {
            str(group_threads): {
                str(batch): _repeated(group, "train", batch, N_IMAGES / batch) for batch in RATES
            }
            for group_threads, group in (("1", one), ("2", threads))
        }
        sums = {
            str(CONTENDERS[name].ranks): {
                str(n_bytes): _repeated(groups[name], "sum", n_bytes) for n_bytes in SUMS
            }
            for name in (NAMES[TWO], NAMES[FOUR])
        }
    return {
        "network": list(MEDIUM.widths),
        "images": N_IMAGES,
        "data": data["data"],
        "cpus": usable_cpus(),
        "epochs": epochs,
        "peak_bytes": memory,
        "steps": steps,
        "sums": sums,
    }


def _repeated(group: Ranks, task: str, size: int, parts: float = 1) -> float:
    """Return the median seconds of a part of a task, after one that warms up."""
    times = [group.run(task, size)[0] / parts for _ in range(3)]
    return spread(times[1:]).median


# --- tables ---------------------------------------------------------------------------------------


def tables(result: Result) -> list[Table]:
    """Return the table of marks: what was measured beside what is wanted."""
    rows = []
    for mark in MARKS:
        own, other = NAMES[mark.contender], NAMES[mark.beside]
        runs = result["epochs"][str(mark.batch)]
        ratio = times(runs[other], runs[own], mark.least)
        cells = [median(runs[own]), other, median(runs[other]), f"{mark.least:g}", ratio]
        rows.append([own, f"{mark.batch:,}", *cells])
    columns = ["run", "batch", "epoch", "beside", "epoch", "mark", "times as fast"]
    n_rounds = len(next(iter(result["epochs"][str(BATCHES[0])].values())))
    note = (
        f"An epoch of {result['images']:,} images ({result['data']}), "
        f"{'-'.join(map(str, result['network']))}, relu, Adam, float32, NumPy; medians of "
        f"{n_rounds} rounds in turns, ratios round by round with their quartiles; bold misses its "
        "mark."
    )
    return [Table(PART.title, columns, rows, note=note)]


PART = Part("Ranks", lambda options: options.rounds + 2, measure, tables)

if __name__ == "__main__":
    address, folder, ranks, shares = sys.argv[1:]
    serve(address, Path(folder), int(ranks), bool(int(shares)))
