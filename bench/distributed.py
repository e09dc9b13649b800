"""Time one training on several ranks beside one process, in turns, and model more machines.

    python bench/distributed.py
    python bench/distributed.py --rounds 3 --out results/distributed.json
    python bench/distributed.py --model bench/history/2026-01-02-distributed.json
    python bench/distributed.py --page bench/history/2026-01-02-distributed.json

The first writes ``bench/history/<date>-distributed.json`` and prints the marks and their table.
``--model`` measures nothing: it prints how many machines pay, from the rates of a record
(`machines`). ``--page`` writes both into docs/many-machines.md.
"""

from __future__ import annotations

import argparse
import json
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
from environment import environment, usable_cpus
from machines import check_table, growth_section
from report import replace_block, seconds, table
from spread import ratio, spread
from turns import PAUSE, POOLS, Result, peak_bytes, prepare, say
from workloads import WORKLOADS

__all__ = ["CONTENDERS", "MARKS", "main", "marks_table", "measure_ranks", "written_into"]

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "many-machines.md"
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
            command = [sys.executable, __file__, "--serve", address]
            command += [str(self._folder), str(contender.ranks), str(int(contender.shares))]
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


def measure_ranks(rounds: int) -> Result:
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
        for number in range(-1, rounds):  # The first warms up.
            say(f"round {number + 1} of {rounds}")
            for batch in BATCHES:
                for name, group in groups.items():
                    time.sleep(PAUSE)
                    taken, peak = group.run("train", batch)
                    memory[name] = max(memory[name], peak)
                    if number >= 0:
                        epochs[str(batch)][name].append(taken)
        say("steps of one process, and sums")
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


def marks_table(result: Result) -> str:
    """Return the table of marks: what was measured beside what is wanted."""
    rows = []
    for mark in MARKS:
        own, other = NAMES[mark.contender], NAMES[mark.beside]
        runs = result["epochs"][str(mark.batch)]
        got = ratio(runs[other], runs[own])
        times = f"{got.median:.2f} ({got.low:.2f} to {got.high:.2f})"
        cells = [seconds(spread(runs[name]).median) for name in (own, other)]
        met = times if got.median >= mark.least else f"**{times}**"
        rows.append([f"{mark.batch:,}", own, cells[0], other, cells[1], f"{mark.least:g}", met])
    names = ["batch", "run", "epoch", "beside", "epoch", "mark", "times as fast"]
    return table(names, "rlrlrrr", rows)


def section(record: Result) -> str:
    """Return the marks, and what they were measured on."""
    facts, result = record["environment"], record["distributed"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    widths = "-".join(map(str, result["network"]))
    return (
        f"{marks_table(result)}\n\nAn epoch of {result['images']:,} images ({result['data']}), "
        f"{widths}, relu, Adam, float32, NumPy; medians of {_rounds(result)} rounds in turns, "
        "ratios round by round with their quartiles; bold misses its mark. Measured on "
        f"{facts['date']}; {facts['cpu']}, {facts['cpus']} CPUs; Python {facts['python']}, "
        f"{versions}.\n"
    )


def _rounds(result: Result) -> int:
    return len(next(iter(result["epochs"][str(BATCHES[0])].values())))


def written_into(page: str, record: Result) -> str:
    """Return the page with the tables of a record in their blocks."""
    result = record["distributed"]
    page = replace_block(page, "distributed-marks", section(record))
    page = replace_block(page, "distributed-check", f"{check_table(result)}\n")
    return replace_block(page, "distributed-growth", f"{growth_section(result)}\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rounds", type=int, default=9, help="turns of each contender (%(default)s)")
    add("--out", type=Path, metavar="FILE", help="JSON file (bench/history/DATE-distributed.json)")
    add("--model", type=Path, metavar="FILE", help="print how many machines pay, from a record")
    add("--page", type=Path, metavar="FILE", help=f"write the tables of a record to {PAGE.name}")
    add("--serve", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        address, folder, ranks, shares = args.serve
        serve(address, Path(folder), int(ranks), bool(int(shares)))
        return
    if args.page or args.model:
        record = json.loads((args.page or args.model).read_text())
        if args.model:
            result = record["distributed"]
            print(f"{check_table(result)}\n\n{growth_section(result)}")
        else:
            page = written_into(PAGE.read_text(encoding="utf-8"), record)
            PAGE.write_text(page, encoding="utf-8")
        return
    result = measure_ranks(args.rounds)
    record = {"environment": environment(), "distributed": result}
    out = args.out or HERE / "history" / f"{time.strftime('%Y-%m-%d')}-distributed.json"
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(section(record))


if __name__ == "__main__":
    main()
