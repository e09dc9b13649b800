"""Time fits on all threads where another program keeps one of the processors busy.

Each case runs in turns in three ways: on all threads of an idle machine; beside a program that
computes without pause on the last processor; and by one thread on the processors that are free.

    python bench/busy.py --rounds 3 --out bench/history/2026-01-02-busy.json
    python bench/busy.py --only small medium

`mlp-xp bench --only busy` runs this part of the suite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from environment import environment
from progress import open_progress
from report import table
from spread import ratio, spread
from turns import Announce, Result

__all__ = ["ALONE", "BUSY", "CASES", "HEADER", "busy_rows", "busy_turns", "measure_busy"]

LIMIT = 1.4  # The most that all threads may take beside the program, in times of one thread alone.
IDLE, BUSY, ALONE = "all threads, idle", "all threads, busy", "one thread, busy"
# Widths, batch, samples and epochs of a fit; a prediction of 20,000 rows; a search of 27 fits.
CASES = {
    "tiny": ((64, 100, 10), 32, 1_797, 20),
    "small": ((256, 128, 10), 64, 6_400, 60),
    "lab": ((3072, 64, 10), 128, 10_240, 6),
    "lab, 2 epochs": ((3072, 64, 10), 128, 10_240, 2),  # Too short for machine code.
    "medium": ((3072, 512, 512, 10), 128, 5_120, 2),
    "wider": ((3072, 1024, 512, 512, 10), 128, 2_560, 2),
    "prediction": ((3072, 512, 512, 10), 128, 1_280, 16),
    "search": ((64, 100, 10), 200, 1_797, 16),
}
RUN = """
import json, os, sys, time, warnings
os.sched_setaffinity(0, json.loads(sys.argv[3]))
import numpy as np
from mlp_xp import MLPClassifier
from mlp_xp.model_selection import GridSearchCV
name, (widths, batch, n, epochs) = sys.argv[1], json.loads(sys.argv[2])
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.standard_normal((n, widths[0]), dtype=np.float32)
y = rng.integers(widths[-1], size=n)
model = MLPClassifier(widths[1:-1], batch_size=batch, max_iter=epochs, random_state=0,
    n_iter_no_change=np.inf)
search = GridSearchCV(model, {"alpha": [1e-4, 1e-2, 1.0], "learning_rate_init": [1e-4, 1e-3, 1e-2]},
    cv=3, refit=False)
many = np.tile(X, (16, 1))
act = {"prediction": lambda: model.predict(many), "search": lambda: search.fit(X, y)}.get(
    name, lambda: model.fit(X, y))
model.fit(X, y)
act()
start = time.perf_counter()
act()
print(time.perf_counter() - start)
"""


def run(name: str, cpus: set[int], threads: int) -> float:
    """Return the seconds of a case in a new process, after a call that is not timed."""
    names = "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"
    done = subprocess.run(
        [sys.executable, "-c", RUN, name, json.dumps(CASES[name]), json.dumps([*cpus])],
        env=os.environ | dict.fromkeys(names, str(threads)),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@contextlib.contextmanager
def busy_program(cpu: int) -> Iterator[None]:
    """Run a program that keeps a processor busy meanwhile."""
    loop = f"import os; os.sched_setaffinity(0, [{cpu}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", loop]) as program:
        try:
            yield
        finally:
            program.kill()


def busy_turns(rounds: int, names: list[str]) -> int:
    """Return the number of turns of `measure_busy`."""
    return rounds * len(names) * 3


def measure_busy(rounds: int, names: list[str], announce: Announce) -> Result:
    """Return the seconds of each case in each way, a number for each round.

    Nothing where a process cannot be kept to some of two processors.
    """
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return {}
    cpus = os.sched_getaffinity(0)
    taken = max(cpus)
    seconds: Result = {name: {IDLE: [], BUSY: [], ALONE: []} for name in names}
    for number in range(rounds):
        for name, ways in seconds.items():
            for way, own in ways.items():
                announce(f"{name}, {way}, round {number + 1} of {rounds}")
                chosen = cpus - {taken} if way == ALONE else cpus
                with contextlib.nullcontext() if way == IDLE else busy_program(taken):
                    own.append(run(name, chosen, len(chosen)))
    return seconds


HEADER = ["case", IDLE, BUSY, ALONE, "busy / one thread", "at most"]


def busy_rows(seconds: Result) -> list[list[str]]:
    """Return a row of cells for each case."""
    rows = []
    for name, ways in seconds.items():
        cells = [f"{spread(ways[way]).median:.2f} s" for way in (IDLE, BUSY, ALONE)]
        times = ratio(ways[BUSY], ways[ALONE])
        quartiles = f"{times.median:.2f} ({times.low:.2f} to {times.high:.2f})"
        rows.append([name, *cells, quartiles, str(LIMIT)])
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES], metavar="CASE")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write to")
    args = parser.parse_args(argv)
    with open_progress({"busy": busy_turns(args.rounds, args.only)}) as progress:
        progress.begin("busy")
        seconds = measure_busy(args.rounds, args.only, progress.announce)
    if not seconds:
        parser.exit(2, "this needs Linux and two processors\n")
    if args.out is not None:
        result = {"environment": environment(), "seconds": seconds}
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(HEADER, "lrrrrr", busy_rows(seconds)), end="")


if __name__ == "__main__":
    main()
