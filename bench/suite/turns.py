"""Contenders in turns (A B C A B C ...), so a temporary slowdown affects all of them.

A turn runs in a new process (`child`) or in the contender's process (`Worker`), which sleeps
during other turns. In a single process, the threads of OpenBLAS, OpenMP and XLA would compete,
because they spin before they sleep.
"""

import contextlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.suite.contenders import Entry
from bench.suite.records import ROOT, Result, thread_pools
from bench.suite.workloads import Task, Workload, load

PAUSE = 0.1  # Seconds between turns, because the last threads spin for some 20 ms.
PATIENCE = 600  # The time limit of a turn in seconds, including compilation.
TRAINED_ON = 1_024  # The number of images to train on before predictions.
SLOW = "The machine code for NumPy cannot be compiled"  # The warning of the library.
SPAWN = multiprocessing.get_context("spawn")
POOLS = ("OPENBLAS", "OMP", "MKL", "BLIS", "NUMEXPR", "NUMBA")

Announce = Callable[[str], None]  # Called with the name of the turn that starts.


class Options(NamedTuple):
    """The options of a run, passed to each of its parts."""

    rounds: int
    threads: int = 1
    scratch: Path = Path()  # A folder for temporary files.
    quick: bool = False
    images: int | None = None  # The maximum number of images per epoch.
    contenders: list[str] | None = None  # Names; None for all.
    cases: tuple[str, ...] = ()  # Prefixes of case names; empty for all.

    def listed(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.contenders is None or name in self.contenders]

    def chosen(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name.startswith(self.cases or "")]


class Part(NamedTuple):
    """A part of a run: its title, and the functions that measure it and return its tables."""

    title: str
    measure: Callable[[Options, Announce], Result]
    tables: Callable[[Result], list[Any]]  # returns `bench.suite.tables.Table` objects


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def in_turns(
    functions: dict[str, Callable[[], Any]], rounds: int, announce: Announce = say
) -> Result:
    """Return the results of each function in each round, or why the function cannot run."""
    found: Result = {name: [] for name in functions}
    for number, (name, function) in product(range(rounds), functions.items()):
        if isinstance(found[name], list):
            announce(f"{name}, round {number + 1} of {rounds}")
            answer = function()
            if isinstance(answer, dict) and "cannot_run" in answer:
                found[name] = answer
            else:
                found[name].append(answer)
    return found


def measure(jobs: dict[str, Any], rounds: int, announce: Announce = say) -> Result:
    """Return the seconds of each contender's epochs or calls, or why it cannot run.

    A job is a `Measurement`, or another NamedTuple with ``threads``, ``repeats`` and
    ``get_ready``. Each job has a warm-up turn, and one turn per round.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # All processes import at the same time; after that, only one computes at a time.
        workers = {
            name: stack.enter_context(Worker(job, folder / f"{number}.log")).ask
            for number, (name, job) in enumerate(jobs.items())
        }
        found = in_turns(workers, rounds + 1, announce)
    for name, runs in found.items():
        if isinstance(runs, list):
            first, *turns = runs
            seconds, losses, peaks = (list(column) for column in zip(*turns, strict=True))
            found[name] = first | {"losses": first["losses"] + losses, "seconds": seconds}
            found[name]["peak_bytes"] = peaks[-1]
    return found


class Worker(contextlib.AbstractContextManager):
    """The process of a contender, which runs a turn on request."""

    def __init__(self, job: Any, log: Path) -> None:
        self._log = log
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=work, args=(job, theirs))
        with output_in(log):
            self._process.start()
        theirs.close()

    def ask(self) -> Any:
        """Return the result of a turn, or the reason why there is none."""
        time.sleep(PAUSE)
        with contextlib.suppress(OSError):  # The process may have ended, after its last result.
            self._pipe.send("turn")
        with contextlib.suppress(OSError, EOFError):
            if not self._pipe.poll(PATIENCE):
                self._process.kill()  # It must not compute during the turns of others.
                return {"cannot_run": f"not done after {PATIENCE} s"}
            return self._pipe.recv()
        self._process.join()
        printed = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        last = [line.strip()[:200] for line in printed if line.strip()][-1:]
        status = f"its process ended with status {self._process.exitcode}"
        return {"cannot_run": ": ".join([status, *last])}

    def __exit__(self, *_: object) -> None:
        self._pipe.close()  # This ends a process that waits for a turn.
        self._process.join(5)
        self._process.kill()


def work(job: Any, pipe: Any) -> None:
    """Run a turn for each request, and send the results."""
    try:
        if job.threads is not None and hasattr(os, "sched_setaffinity"):
            # XLA starts one thread per usable CPU and ignores environment variables.
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", SLOW, RuntimeWarning)  # Training would be slower.
        turn = job.get_ready()
        pipe.recv()
        loss = turn()  # This turn compiles and warms up.
    except Exception as error:  # A peer may raise any error, which is shown in the table.
        pipe.send(failure(error))
        return
    pipe.send({"thread_pools": thread_pools(), "losses": [loss]})
    with contextlib.suppress(EOFError):
        while pipe.recv():
            start = time.perf_counter()
            loss = turn()
            seconds = loss if isinstance(loss, Seconds) else time.perf_counter() - start
            pipe.send([seconds / job.repeats, loss, peak_bytes()])


@contextlib.contextmanager
def output_in(path: Path | str) -> Iterator[None]:
    """Write the output of processes that start in the block to a file, also after Ctrl-C."""
    kept: dict[int, int] = {}
    sys.stdout.flush()  # The start of a process would flush it to the file.
    try:
        with open(path, "w") as file:
            for output in (1, 2):
                with contextlib.suppress(OSError):  # This process may have closed it.
                    kept[output] = os.dup(output)
                    os.dup2(file.fileno(), output)
        yield
    finally:
        for output, own in kept.items():
            os.dup2(own, output)
            os.close(own)


class Seconds(float):
    """The result of a turn that measures its own time."""


def failure(error: Exception) -> Result:
    return {"cannot_run": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def set_threads(threads: int | None) -> None:
    """Set the number of threads of all libraries in new processes; None for the default."""
    for pool in POOLS:
        os.environ.pop(f"{pool}_NUM_THREADS", None)
    os.environ.update(threads_of(threads))


def threads_of(threads: int | None) -> dict[str, str]:
    return {} if threads is None else {f"{pool}_NUM_THREADS": str(threads) for pool in POOLS}


def child(
    *arguments: object, cwd: Path | None = None, launcher: Iterable[str] = (), **env: str
) -> Any:
    """Run Python, and return the last JSON that it prints, or why it cannot run.

    With a launcher such as mpiexec, return the output of each process.
    """
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {"PYTHONPATH": paths, "PYTHONWARNINGS": f"ignore,error:{SLOW}:RuntimeWarning"}
    command = [*launcher, sys.executable, *map(str, arguments)]
    options = {"env": os.environ | own | env, "cwd": cwd, "text": True, "capture_output": True}
    done = subprocess.run(command, **options)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        return {"cannot_run": (last or [f"status {done.returncode}"])[0][:300]}
    lines = done.stdout.splitlines()
    return [json.loads(line) for line in lines] if launcher else json.loads(lines[-1])


def call(function: Callable[..., Any], *arguments: object, **options: Any) -> Any:
    """Return the result of a function in a new process; arguments are passed by their `repr`."""
    module = sys.modules[function.__module__].__spec__.name  # Not __main__.
    # A rank writes its whole line at once, because other ranks write too.
    code = (
        f"import json, sys; from {module} import {function.__name__} as act\n"
        f"sys.stdout.write(json.dumps(act(*{arguments!r})) + chr(10))"
    )
    return child("-c", code, **options)


def peak_bytes() -> int | None:
    """Return the peak memory of this process, or None if the system does not report it."""
    # ru_maxrss is not used, because a process inherits it from its parent.
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else None
    return None


class Measurement(NamedTuple):
    """A contender and a workload, sent to the contender's process."""

    entry: Entry
    workload: Workload
    folder: Path  # The folder where `prepare` wrote the data.
    threads: int

    @property
    def repeats(self) -> int:
        """The number of epochs or calls per turn."""
        return self.entry.repeats or self.workload.repeats

    def get_ready(self) -> Callable[[], Any]:
        """Load data and library; return a function that runs a turn and returns any loss."""
        workload, entry = self.workload, self.entry
        x, y = (np.load(self.folder / f"{name}.npy") for name in (entry.data, "labels"))
        os.environ.update(entry.environment)
        if workload.kind == "train":
            contender = entry.make(Task(workload, x, y, self.threads))
            return lambda: contender.train(self.repeats)
        rows = x[: workload.n_images].copy()
        contender = entry.make(Task(workload, x[:TRAINED_ON], y[:TRAINED_ON], self.threads))
        contender.train(1)

        def predict() -> None:
            for _ in range(self.repeats):
                contender.predict(rows)

        return predict


def prepare(workload: Workload, folder: Path) -> Result:
    """Write a workload's data to files, so that this does not increase a contender's memory."""
    least = TRAINED_ON if workload.kind == "predict" else 0
    raw, labels, source = load(workload.data, max(workload.n_images, least))
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
