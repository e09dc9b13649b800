"""Contenders in turns (A B C A B C ...), so that a slow spell of the machine affects all of them.

Each has its own process and sleeps during the turns of others: the threads of OpenBLAS, OpenMP and
XLA spin before they sleep, and would compete in one process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.suite.contenders import Entry
from bench.suite.records import ROOT, Result, thread_pools
from bench.suite.workloads import Workload, load

PAUSE = 0.1  # Seconds: the threads of the last contender spin for some 20 ms.
PATIENCE = 600  # Seconds for a turn, including the first, which compiles.
TRAINED_ON = 1_024  # Images of the training before a prediction.
SLOW = "What makes training on NumPy fast cannot be compiled"  # The library's warning.
POOLS = ("OPENBLAS", "OMP", "MKL", "BLIS", "NUMEXPR", "NUMBA")

Announce = Callable[[str], None]  # Of the turn that begins.


class Options(NamedTuple):
    """The options of a run, for each of its parts."""

    rounds: int
    threads: int
    scratch: Path  # A folder for temporary files.
    quick: bool = False
    images: int | None = None  # The most of an epoch.
    contenders: list[str] | None = None  # Those that are chosen, or all.
    cases: tuple[str, ...] = ()  # Beginnings of the names of those that are chosen, or all.

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Return the names of the chosen cases."""
        return [name for name in names if name.startswith(self.cases or "")]


class Part(NamedTuple):
    """A part of a run: its title, how many turns it announces, and what measures and shows it."""

    title: str
    n_turns: Callable[[Options], int]
    measure: Callable[[Options, Announce], Result]
    tables: Callable[[Result], list[Any]]  # of `bench.suite.tables.Table`


class Measurement(NamedTuple):
    """A contender at a workload, sent to its process."""

    entry: Entry
    workload: Workload
    folder: Path  # Where `prepare` wrote the data.
    threads: int

    @property
    def repeats(self) -> int:
        """The number of epochs or calls per turn."""
        return self.entry.repeats or self.workload.repeats

    def get_ready(self) -> Callable[[], Any]:
        """Load data and library; return the function of a turn, which returns the loss, if any."""
        workload, entry = self.workload, self.entry
        x = np.load(self.folder / f"{entry.data}.npy")
        y = np.load(self.folder / "labels.npy")
        rows = x[: workload.n_images].copy() if workload.kind == "predict" else None
        if rows is not None:
            x, y = x[:TRAINED_ON], y[:TRAINED_ON]
        task = workload.task(x, y, self.threads)
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
    """The result of a turn that timed itself."""


def prepare(workload: Workload, folder: Path) -> Result:
    """Write the data of a workload, so that preparing them adds to no contender's memory."""
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
    """Set the number of threads of all libraries in processes started from now on."""
    for pool in POOLS:
        os.environ[f"{pool}_NUM_THREADS"] = str(threads)


def peak_bytes(process: int | str = "self") -> int | None:
    """Return the peak memory of a process, or None if the system does not report it."""
    # Not ru_maxrss, which a process inherits from its parent.
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


def show_slow_path() -> None:
    """Report the warning that machine code cannot be compiled, whatever else is ignored."""
    warnings.filterwarnings("always", SLOW, RuntimeWarning)


def slow_path(printed: str) -> Result | None:
    """Return that a process cannot run if its machine code could not be compiled."""
    lines = [line for line in printed.splitlines() if SLOW in line]
    return {"cannot_run": f"without machine code: {lines[0]}"[:300]} if lines else None


def work(pipe: Connection, job: Any, log: Path) -> None:
    """Run a turn whenever the pipe asks for one, and send its seconds.

    What a peer prints goes to the log: it would break the line of progress.
    """
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the parent, whose end stops this.
    if job.threads is not None and hasattr(os, "sched_setaffinity"):
        # XLA starts a thread per usable CPU, whatever the environment says.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    try:
        show_slow_path()
        turn = job.get_ready()
        pipe.recv()
        loss = turn()  # Compiles and warms up.
    except Exception as error:
        # A peer may fail in any way; its line of the table says how.
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


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def child(*arguments: object, env: dict[str, str] | None = None) -> Any:
    """Return the JSON that Python prints last with these arguments, or why it cannot run."""
    shown = f"ignore,always:{SLOW}:RuntimeWarning"
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONWARNINGS": shown, "PYTHONPATH": paths} | (env or {}),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        return {"cannot_run": (last or [f"status {done.returncode}"])[0][:300]}
    return slow_path(done.stderr) or json.loads(done.stdout.splitlines()[-1])


def in_turns(
    names: Sequence[str], rounds: int, act: Callable[[str], Any], announce: Announce = say
) -> Result:
    """Return what an act gives for each name in each round, or why it cannot run."""
    found: Result = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            if isinstance(found[name], dict):
                continue
            announce(f"{name}, round {number + 1} of {rounds}")
            answer = act(name)
            if isinstance(answer, dict) and "cannot_run" in answer:
                found[name] = answer
            else:
                found[name].append(answer)
    return found


def measure(jobs: dict[str, Any], rounds: int, announce: Announce = say) -> dict[str, Result]:
    """Return the seconds of each contender's epochs or calls, or why it cannot run here.

    It is a `Measurement`, or another NamedTuple with its ``threads``, ``repeats`` and
    ``get_ready``. Each has a turn to warm up, and one in each round.
    """
    with tempfile.TemporaryDirectory() as logs:
        return _measure(jobs, rounds, announce, Path(logs))


def _measure(
    jobs: dict[str, Any], rounds: int, announce: Announce, logs: Path
) -> dict[str, Result]:
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes: dict[str, SpawnProcess] = {}
    files = {name: logs / str(number) for number, name in enumerate(jobs)}
    for name, job in jobs.items():
        pipes[name], end = context.Pipe()
        arguments = (end, job, files[name])
        processes[name] = context.Process(target=work, args=arguments, daemon=True)
        processes[name].start()
        end.close()
    results: dict[str, Result] = {}
    for name in jobs:
        # All import at once; from here on, one computes at a time.
        announce(f"{name}, warming up")
        answer = ask(pipes[name], processes[name], files[name])
        results[name] = answer if "cannot_run" in answer else {**answer, "seconds": []}
    for number in range(rounds):
        for name in jobs:
            if "cannot_run" in results[name]:
                continue
            announce(f"{name}, round {number + 1} of {rounds}")
            time.sleep(PAUSE)
            answer = ask(pipes[name], processes[name], files[name])
            if isinstance(answer, dict):
                results[name] = answer
                continue
            seconds, loss, peak = answer
            results[name]["seconds"].append(seconds)
            results[name]["losses"].append(loss)
            results[name]["peak_bytes"] = peak
    for pipe in pipes.values():
        pipe.close()  # Processes waiting for a turn end.
    for process in processes.values():
        process.join(5)
        process.terminate()
    return results


def ask(pipe: Connection, process: SpawnProcess, log: Path) -> Any:
    """Start a turn of a process; return its answer, or why there is none."""
    try:
        pipe.send(True)
        if pipe.poll(PATIENCE):
            answer = pipe.recv()
            return slow_path(log.read_text(errors="replace")) or answer
        process.terminate()
        return {"cannot_run": f"not done after {PATIENCE} s"}
    except (EOFError, OSError):  # It has ended; its last message may still be in the pipe.
        if pipe.poll():
            with contextlib.suppress(EOFError):
                return pipe.recv()
        process.join()
        printed = log.read_text(errors="replace").split("\n") if log.exists() else []
        last = [line.strip()[:200] for line in printed if line.strip()][-1:]
        return {
            "cannot_run": ": ".join([f"its process ended with status {process.exitcode}", *last])
        }
