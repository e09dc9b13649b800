"""Contenders take turns (A B C A B C ...), so that a slow spell of the machine hits them all.

Each has a process to itself, as its user would run it, and sleeps while another's turn is on: the
threads of OpenBLAS, OpenMP and XLA look for work before they sleep, and would fight in one process.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contenders import Entry
from contest import Task
from environment import thread_pools
from workloads import Workload, load

__all__ = ["Job", "Seconds", "measure", "peak_bytes", "prepare", "set_threads"]

PAUSE = 0.1  # Seconds: the threads of the one before go on spinning for some 20 ms.
PATIENCE = 600  # Seconds for a turn, and for the first, in which much is compiled.
TRAINED_ON = 1_024  # Images that a network sees before it predicts.
POOLS = ("OPENBLAS", "OMP", "MKL", "BLIS", "NUMEXPR", "NUMBA")

Result = dict[str, Any]


class Job(NamedTuple):
    """A contender at a workload, as it is sent to its process."""

    entry: Entry
    workload: Workload
    folder: Path  # Where `prepare` wrote the data.
    threads: int

    @property
    def repeats(self) -> int:
        """Return how many epochs or calls there are in a turn."""
        return self.entry.repeats or self.workload.repeats

    def get_ready(self) -> Callable[[], Any]:
        """Load data and library; return what a turn does, which returns the loss, if it trains."""
        workload, entry = self.workload, self.entry
        x = np.load(self.folder / f"{entry.data}.npy")
        y = np.load(self.folder / "labels.npy")
        rows = x[: workload.n_images].copy() if workload.kind == "predict" else None
        if rows is not None:
            x, y = x[:TRAINED_ON], y[:TRAINED_ON]
        task = Task(
            workload.widths,
            workload.activation,
            workload.solver,
            workload.learning_rate,
            workload.batch_size,
            x,
            y,
            self.threads,
        )
        os.environ.update(entry.environment)
        contender = importlib.import_module(entry.module).make(task, **entry.options)
        if rows is None:
            return lambda: contender.train(self.repeats)
        contender.train(1)

        def predict() -> None:
            for _ in range(self.repeats):
                contender.predict(rows)

        return predict


class Seconds(float):
    """What a turn returns that has timed itself."""


def prepare(workload: Workload, folder: Path) -> Result:
    """Write a workload's data, so that no contender's memory shows how they were made."""
    n_images = max(workload.n_images, TRAINED_ON) if workload.kind == "predict" else None
    raw, labels, source = load(workload.data, n_images or workload.n_images)
    scaled = raw.astype(np.float32)
    if workload.data.endswith("-unit"):
        scaled /= 255
    else:
        scaled -= scaled.mean(axis=0)
        deviation = scaled.std(axis=0)
        scaled /= np.where(deviation == 0, 1, deviation)
    for name, array in {"raw": raw, "scaled": scaled, "labels": labels}.items():
        np.save(folder / f"{name}.npy", array)
    rows = min(workload.n_images, len(raw))
    return {"images": rows, "data": source, "pixels": raw[:rows].size}


def set_threads(threads: int) -> None:
    """Give the pools of all libraries that the processes started from now on load as many."""
    for pool in POOLS:
        os.environ[f"{pool}_NUM_THREADS"] = str(threads)


def peak_bytes(process: int | str = "self") -> int | None:
    """Tell the most memory that a process ever held, where the system tells."""
    # Not ru_maxrss: a process inherits that of the one which started it.
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


def work(pipe: Connection, job: Any) -> None:
    """Take a turn whenever the pipe says so, and send back its seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end ends this.
    if job.threads is not None and hasattr(os, "sched_setaffinity"):
        # XLA has a thread for each CPU that it may use, whatever the environment says.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    try:
        turn = job.get_ready()
        pipe.recv()
        loss = turn()  # Compiles and warms up.
    except Exception as error:
        # A peer may fail in ways of its own; its line of the table says how.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        pipe.send({"cannot_run": reason[:300]})
        return
    pipe.send({"thread_pools": thread_pools(), "losses": [loss]})
    with contextlib.suppress(EOFError):  # The other end was closed: no more turns.
        while pipe.recv():
            start = time.perf_counter()
            loss = turn()
            seconds = loss if isinstance(loss, Seconds) else time.perf_counter() - start
            pipe.send((float(seconds) / job.repeats, loss, peak_bytes()))


def measure(jobs: dict[str, Any], rounds: int) -> dict[str, Result]:
    """Return the seconds of each job's epochs or calls, or why it cannot run here.

    A job is a `Job`, or another NamedTuple with its ``threads``, ``repeats`` and ``get_ready``.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes: dict[str, SpawnProcess] = {}
    for name, job in jobs.items():
        pipes[name], end = context.Pipe()
        processes[name] = context.Process(target=work, args=(end, job), daemon=True)
        processes[name].start()
        end.close()
    results: dict[str, Result] = {}
    for name in jobs:
        # All of them import at once; from here on, no two compute at a time.
        say(f"  {name}: warming up")
        answer = ask(pipes[name], processes[name])
        results[name] = answer if "cannot_run" in answer else {**answer, "seconds": []}
    for number in range(rounds):
        say(f"  round {number + 1} of {rounds}")
        for name in jobs:
            if "cannot_run" in results[name]:
                continue
            time.sleep(PAUSE)
            answer = ask(pipes[name], processes[name])
            if isinstance(answer, dict):
                results[name] = answer
                continue
            seconds, loss, peak = answer
            results[name]["seconds"].append(seconds)
            results[name]["losses"].append(loss)
            results[name]["peak_bytes"] = peak
    for pipe in pipes.values():
        pipe.close()  # What waits for its turn ends.
    for process in processes.values():
        process.join(5)
        process.terminate()
    return results


def ask(pipe: Connection, process: SpawnProcess) -> Any:
    """Give a process its turn, and what it answers, or why it does not."""
    try:
        pipe.send(True)
        if pipe.poll(PATIENCE):
            return pipe.recv()
        process.terminate()
        return {"cannot_run": f"not done after {PATIENCE} s"}
    except (EOFError, OSError):  # It has ended; what it said before that is still in the pipe.
        if pipe.poll():
            with contextlib.suppress(EOFError):
                return pipe.recv()
        process.join()
        return {"cannot_run": f"its process ended with status {process.exitcode}"}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
