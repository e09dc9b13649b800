"""Fits while another program keeps the last core busy: on all threads, or on the other cores."""

import os
import subprocess
import sys
import time
from functools import partial

import numpy as np

from bench.suite.records import Result
from bench.suite.tables import Table, spread, times
from bench.suite.turns import Announce, Options, Part, call, in_turns, threads_of

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


def run(name: str, widths: tuple[int, ...], batch: int, n: int, epochs: int) -> float:
    """Return the seconds of a case after a warm-up."""
    from mlp_xp import MLPClassifier
    from mlp_xp.model_selection import GridSearchCV

    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, widths[0]), dtype=np.float32)
    y = rng.integers(widths[-1], size=n)
    own = {"max_iter": epochs, "random_state": 0, "n_iter_no_change": np.inf}
    model = MLPClassifier(widths[1:-1], batch_size=batch, **own).fit(X, y)
    rates = {"alpha": [1e-4, 1e-2, 1.0], "learning_rate_init": [1e-4, 1e-3, 1e-2]}
    search, many = GridSearchCV(model, rates, cv=3, refit=False), np.tile(X, (16, 1))
    for _ in range(2):
        start = time.perf_counter()
        if name == "prediction":
            model.predict(many)
        else:
            (search if name == "search" else model).fit(X, y)
    return time.perf_counter() - start


def measure(options: Options, announce: Announce) -> Result:
    """Return the seconds of each case in each way, one number per round."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else {0}
    if len(cpus) < 2:  # There is one core, or processes cannot be restricted to cores.
        return {}
    names = options.chosen(QUICK if options.quick else CASES)

    def act(name: str, way: str) -> object:
        chosen = cpus - {max(cpus)} if way == ALONE else cpus
        loop = "pass" if way == IDLE else "while True: pass"
        os.sched_setaffinity(0, {max(cpus)})  # Processes inherit the cores.
        program = subprocess.Popen([sys.executable, "-c", loop])
        try:
            os.sched_setaffinity(0, chosen)
            return call(run, name, *CASES[name], **threads_of(len(chosen)))
        finally:
            os.sched_setaffinity(0, cpus)
            program.kill()
            program.wait()

    turns = {f"{name}: {way}": partial(act, name, way) for name in names for way in WAYS}
    found = in_turns(turns, min(options.rounds, 3), announce)
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
