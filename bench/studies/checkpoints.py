"""The cost of checkpoints every 10 s in the training of the medium network, by its parts.

They are measured with a checkpoint a second: whole epochs with and without differ by less than the
noise of a machine.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.suite.records import Result, measured_on
from bench.suite.spread import spread
from bench.suite.tables import Table
from bench.suite.turns import Announce, Options, Part
from bench.suite.workloads import WORKLOADS
from mlp_xp import MLP
from mlp_xp.callbacks import Checkpoint

INTERVAL = 10.0  # Seconds between the checkpoints whose cost is reported.
WORKLOAD = next(workload for workload in WORKLOADS if workload.name == "medium")


class Parts(Checkpoint):
    """A checkpoint that measures its parts."""

    def on_fit_begin(self, model: Any) -> None:
        self.start, self.waits, self.best, self.writes = time.perf_counter(), [], 0.0, []
        super().on_fit_begin(model)

    def on_pause(self, model: Any, pause: Any) -> None:
        start, n_checkpoints = time.perf_counter(), self._last_time
        super().on_pause(model, pause)
        seconds = time.perf_counter() - start
        if self._last_time != n_checkpoints:
            self.waits.append(seconds)
        else:  # Nothing, or a copy of the weights of the best epoch.
            self.best += seconds

    def _write(self, *what: Any) -> Any:
        start = time.thread_time()
        failed = super()._write(*what)
        self.writes.append(time.thread_time() - start)
        return failed


def measure(options: Options, announce: Announce) -> Result:
    """Return the shares of each part in each of some fits; the first one compiles."""
    rng = np.random.default_rng(0)
    X = rng.random((WORKLOAD.n_images, WORKLOAD.widths[0]), dtype=np.float32)
    y = rng.integers(0, WORKLOAD.widths[-1], len(X))
    shares: Result = {}
    for number in range(options.rounds + 1):
        announce(f"fit {number + 1} of {options.rounds + 1}")
        watch = Parts(Path(options.scratch, str(number)), every="1 s")
        settings = {"batch_size": WORKLOAD.batch_size, "learning_rate": "cosine", "max_iter": 28}
        MLP(WORKLOAD.widths[1:-1], random_state=0, callbacks=[watch], **settings).fit(X, y)
        own = {
            "copies of the best weights": watch.best / (time.perf_counter() - watch.start),
            "waiting for a checkpoint": float(np.mean(watch.waits)) / INTERVAL,
            "processor time of writing": float(np.mean(watch.writes)) / INTERVAL,
        }
        for name, share in own.items() if number else ():
            shares.setdefault(name, []).append(share)
    return {"shares": shares}


def tables(measured: Result) -> list[Table]:
    shares = measured["shares"]
    own = {**shares, "all": [sum(parts) for parts in zip(*shares.values(), strict=True)]}
    rows = [[name, *(f"{share:.2%}" for share in spread(values))] for name, values in own.items()]
    note = f"A checkpoint every {INTERVAL:.0f} s; medians of {len(own['all'])} fits."
    columns = ["part", "of the training", "lower quartile", "upper quartile"]
    return [Table(PART.title, columns, rows, note=note)]


def section(record: Result) -> str:
    """Return the figures of a record in words."""
    ((_, _, rows, *_),) = tables(record["checkpoints"])
    *parts, (_, share, low, high) = rows
    text = "; ".join(f"{name} {own}" for name, own, *_ in parts)
    return (
        f"**Every {INTERVAL:.0f} s: {share}** of the time of a training (quartiles {low} "
        f"to {high}): {text}. {measured_on(record['environment'])}"
    )


PART = Part("Checkpoints", lambda options: options.rounds + 1, measure, tables)
