"""Fits while another program keeps the last core busy: on all threads, or on the other cores."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

from bench.suite.records import Result
from bench.suite.tables import Table, spread, times
from bench.suite.turns import Announce, Options, Part, child, in_turns, threads_of

LIMIT = 1.4  # The maximum ratio of the time with all threads to the time with fewer threads.
WAYS = IDLE, BUSY, ALONE = "all threads, idle", "all threads, busy", "one thread, busy"
QUICK = ("small",)
# Widths, batch size, number of samples and epochs. "prediction" predicts 20,480 rows with such a
# network, and "search" fits 27 networks.
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
import json, os, sys, time
os.sched_setaffinity(0, json.loads(sys.argv[3]))
import numpy as np
from mlp_xp import MLPClassifier
from mlp_xp.model_selection import GridSearchCV
name, (widths, batch, n, epochs) = sys.argv[1], json.loads(sys.argv[2])
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


@contextlib.contextmanager
def busy_program(cpu: int) -> Iterator[None]:
    """Run a program that keeps a core busy during the context."""
    loop = f"import os; os.sched_setaffinity(0, [{cpu}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", loop]) as program:
        try:
            yield
        finally:
            program.kill()


def measure(options: Options, announce: Announce) -> Result:
    """Return the seconds of each case in each way, one number per round."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else {0}
    if len(cpus) < 2:  # There is one core, or processes cannot be restricted to cores.
        return {}
    names = options.chosen(QUICK if options.quick else CASES)

    def act(turn: str) -> object:
        name, way = turn.split(": ")
        chosen = cpus - {max(cpus)} if way == ALONE else cpus
        with contextlib.nullcontext() if way == IDLE else busy_program(max(cpus)):
            given = json.dumps(CASES[name]), json.dumps([*chosen])
            return child("-c", RUN, name, *given, **threads_of(len(chosen)))

    turns = [f"{name}: {way}" for name in names for way in WAYS]
    found = in_turns(turns, min(options.rounds, 3), act, announce)
    return {name: {way: found[f"{name}: {way}"] for way in WAYS} for name in names}


def tables(seconds: Result) -> list[Table]:
    rows, missing = [], {}
    for name, ways in seconds.items():
        if failed := [run["cannot_run"] for run in ways.values() if isinstance(run, dict)]:
            missing[name] = failed[0]
            continue
        cells = [f"{spread(ways[way]).median:.2f} s" for way in WAYS]
        rows.append([name, times(ways[BUSY], ways[ALONE]), str(LIMIT), *cells])
    return [Table(PART.title, ["case", "busy / one thread", "at most", *WAYS], rows, missing)]


PART = Part("Beside a program that keeps a processor busy", measure, tables)
