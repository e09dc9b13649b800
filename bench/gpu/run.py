"""A run of check.py: its time limit, its processes, and its results."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.gpu.summary import NOT_REACHED, goals, gpus, write
from bench.suite.records import ROOT

# The time limit of each part in seconds, in order of importance.
LIMITS = {
    "install": 80, "probe": 60, "tests": 120, "peaks": 45, "steps": 170, "launches": 40,
    "transfers": 36, "record": 90, "sanitizer": 60,
}  # fmt: skip
# Seconds reserved for the last results, needed to start a part, and between two writes of results.
RESERVE, LEAST, TICK = 8, 4, 5
# Seconds that an interrupted process has to write results, and that a killed process has to end.
GRACE, LAST = 8, 2
LEAST_TRAINING = 20  # Of these seconds, 15 are for imports and results.
LISTS = ("usable", "missing", "problems", "not_reached", "failed", "goals", "lines")
WEIGHTS = {"torch, compiled": 2}  # Compilers get twice the time.


class Process:
    """A running command with its output in a file."""

    def __init__(self, command: list[str], log: Path) -> None:
        with log.open("w") as file:
            own = {"cwd": ROOT, "stdout": file, "stderr": subprocess.STDOUT}
            self._process = subprocess.Popen(command, **own, start_new_session=True)

    def wait(self, seconds: float) -> int | None:
        """Wait for some seconds; return the exit status, or None if the command still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(max(seconds, 0.0))
        return None

    def send(self, signum: int) -> None:
        """Send a signal to the process and its children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signum)


def stop(processes: Collection[Process], now: Callable[[], float]) -> None:
    """Stop processes and their children, in GRACE + LAST seconds at most."""
    for signum, seconds in ((signal.SIGINT, GRACE), (signal.SIGKILL, LAST)):
        running = [process for process in processes if process.wait(0) is None]
        end = now() + seconds
        for process in running:
            process.send(signum)
        for process in running:
            process.wait(end - now())
    for process in processes:  # Children may outlive their parent.
        process.send(signal.SIGKILL)


class Ended(NamedTuple):
    """The exit status of a command (None after a timeout) and the end of its output."""

    status: int | None
    log: str

    @property
    def last(self) -> str:
        """The last line of the output, which contains the error."""
        lines = [line for line in self.log.splitlines() if line.strip()]
        return " ".join(lines[-1].split())[:300] if lines else "no output"


def find_sanitizer() -> str | None:
    """Return the path of compute-sanitizer, which is part of the CUDA toolkit."""
    name = "compute-sanitizer"
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


@dataclass
class Check:
    """A run: its result, which is written after each part, and the time that is left."""

    folder: Path
    scratch: Path
    wanted: list[str]
    seconds: float
    tiny: bool = False  # Whether to use small networks, without a time limit per part.
    now: Callable[[], float] = time.monotonic
    start: Callable[..., Process] = Process

    def __post_init__(self) -> None:
        self.end = self.now() + self.seconds
        self.sanitizer = find_sanitizer()
        self.lines = self.scratch / "lines.jsonl"
        self.lines.touch()
        self.result: dict[str, Any] = {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "gpus": gpus()}
        self.result |= {name: [] for name in LISTS} | {"wanted": self.wanted}
        self.result |= {name: {} for name in ("tests", "tracebacks", "sanitizer", "seconds")}

    def left(self, part: str) -> float:
        """Return the time limit of a part in seconds, including the time to stop its processes."""
        left = self.end - RESERVE - GRACE - LAST - self.now()
        if part == "record" and self.sanitizer:
            left -= min(LIMITS["sanitizer"], left / 2)
        return left if self.tiny else min(LIMITS[part], left)

    def save(self, *, with_chart: bool = False) -> None:
        """Write JSON and Markdown with all results so far."""
        text = self.lines.read_text()
        whole = text[: text.rfind("\n") + 1]  # The last line may be incomplete.
        self.result["lines"] = [json.loads(line) for line in whole.splitlines()]
        self.result["goals"] = goals(self.result)
        self.result["failed"] = [
            f"{line['contender']}, {line['mode']}, {line['workload']}: {line['cannot_run']}"
            for line in self.result["lines"]
            # A low precision that the GPU lacks is not a failure.
            if line["part"] == "steps" and line["precision"] == "float32" and "mode" in line
            if line.get("cannot_run", NOT_REACHED) != NOT_REACHED
        ]
        self.path = write(self.result, self.folder, with_chart=with_chart)

    def add(self, kind: str, line: str) -> None:
        """Add a line to the problems, skipped parts or missing packages, and print the line."""
        self.result[kind].append(line)
        print(f"  {line}")

    def run(self, commands: dict[str, list[str]], seconds: float) -> dict[str, Ended]:
        """Run commands at the same time, save results meanwhile, and return how they ended."""
        if seconds < LEAST:
            for name in commands:
                self.add("not_reached", f"{name}: no time left")
            return {}
        running: dict[str, Process] = {}
        logs = {name: self.scratch / f"{number}.log" for number, name in enumerate(commands)}
        end = self.now() + seconds
        try:
            for name, command in commands.items():
                running[name] = self.start(command, logs[name])
            while (left := end - self.now()) > 0:
                late = [process for process in running.values() if process.wait(0) is None]
                if not late:
                    break
                late[0].wait(min(left, TICK))
                self.save()
            status = {name: process.wait(0) for name, process in running.items()}
        finally:
            stop(running.values(), self.now)
        return {name: Ended(status[name], logs[name].read_text(errors="replace")) for name in logs}

    def jobs(self, job: str, specs: dict[str, str], seconds: float) -> None:
        """Measure contenders, each with its backend, at the same time, and save the results."""
        more = ["--out", str(self.lines), "--seconds", f"{seconds:.0f}", *["--tiny"] * self.tiny]
        python = [sys.executable, "-m", "bench.gpu.jobs", job]
        start, before = self.now(), len(self.result["lines"])
        commands = {f"{job} {who}": [*python, who, "--spec", specs[who], *more] for who in specs}
        ended = self.run(commands, seconds)
        self.save()
        new = self.result["lines"][before:]
        whose = [line.get("backend") or line["contender"].removeprefix("mlp_xp, ") for line in new]
        for name, end in ended.items():
            n_new = whose.count(name.removeprefix(f"{job} "))
            print(f"  {name}: {n_new} results, {self.now() - start:.0f} s")
            if end.status is None and n_new:  # The last case, such as a compilation, took too long.
                self.add("not_reached", f"{name}: stopped after {seconds:.0f} s")
            elif end.status is None:
                self.add("problems", f"{name}: no result in {seconds:.0f} s: {end.last}")
            elif end.status:
                self.add("problems", f"{name}: exit status {end.status}: {end.last}")
            if end.status != 0:
                self.result["tracebacks"][name] = end.log[-3000:]

    def in_sequence(self, job: str, specs: dict[str, str] | None = None) -> None:
        """Measure contenders (default: all backends) one by one, each in its share of the time."""
        specs = specs or {spec: spec for spec in self.result["usable"]}
        end, total = self.now() + self.left(job), sum(WEIGHTS.get(name, 1) for name in specs)
        for name, spec in specs.items():
            left, weight = end - self.now(), WEIGHTS.get(name, 1)
            self.jobs(job, {name: spec}, left if self.tiny else left * weight / total)
            total -= weight
