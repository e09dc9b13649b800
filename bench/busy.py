"""Time fits on all threads where another program keeps one of the processors busy.

Each case runs in turns in three ways: on all threads of an idle machine; beside a program that
computes without pause on the last processor; and by one thread on the processors that are free.

    python bench/busy.py --rounds 3 --out bench/history/2026-01-02-busy.json
    python bench/busy.py --only small medium
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
from spread import ratio, spread

__all__ = ["CASES", "LIMIT", "measure", "section"]

LIMIT = 1.4  # The most that all threads may take beside the program, in times of one thread alone.
IDLE, BUSY, ALONE = "all threads, idle", "all threads, busy", "one thread, busy"
# Widths, batch, samples and epochs of a fit; a prediction of 20,000 rows; a search of 27 fits.
CASES = {
    "tiny": ((64, 100, 10), 32, 1_797, 20),
    "small": ((256, 128, 10), 64, 6_400, 60),
    "lab": ((3072, 64, 10), 128, 10_240, 2),
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


def measure(names: list[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each case in each way, a number for each round."""
    cpus = os.sched_getaffinity(0)
    taken = max(cpus)
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for _ in range(rounds):
        for name, ways in seconds.items():
            ways.setdefault(IDLE, []).append(run(name, cpus, len(cpus)))
            with busy_program(taken):
                ways.setdefault(BUSY, []).append(run(name, cpus, len(cpus)))
                ways.setdefault(ALONE, []).append(run(name, cpus - {taken}, len(cpus) - 1))
    return seconds


def section(seconds: dict[str, dict[str, list[float]]]) -> str:
    """Return the table of the cases, in Markdown."""
    lines = [f"| case | {IDLE} | {BUSY} | {ALONE} | busy / one thread |", "|---|--:|--:|--:|--:|"]
    for name, ways in seconds.items():
        cells = [f"{spread(ways[way]).median:.2f} s" for way in (IDLE, BUSY, ALONE)]
        times = ratio(ways[BUSY], ways[ALONE])
        lines.append(
            f"| {name} | {' | '.join(cells)} | {times.median:.2f} "
            f"({times.low:.2f} to {times.high:.2f}) of at most {LIMIT} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES], metavar="CASE")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write to")
    args = parser.parse_args(argv)
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        parser.exit(2, "this needs Linux and two processors\n")
    seconds = measure(args.only, args.rounds)
    if args.out is not None:
        result = {"environment": environment(), "seconds": seconds}
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(section(seconds), end="")


if __name__ == "__main__":
    main()
