"""The cost of an epoch by width, depth, batch size and number of rows."""

from __future__ import annotations

from pathlib import Path

from contenders import OURS, entries
from turns import Announce, Job, Result, measure, prepare
from workloads import WORKLOADS, Workload

__all__ = ["SWEEPS", "growth_turns", "measure_growth"]

CONTENDERS = (OURS, "scikit-learn", "torch", "JAX")
BASE = next(workload for workload in WORKLOADS if workload.name == "medium")._replace(
    n_images=4_096
)


def _hidden(*widths: int) -> Workload:
    return BASE._replace(widths=(BASE.widths[0], *widths, BASE.widths[-1]))


# Workloads by the varied value. All else is as in BASE, which is part of each sweep.
SWEEPS = {
    "width of both hidden layers": {n: _hidden(n, n) for n in (64, 256, 512, 2048)},
    "hidden layers of 512": {n: _hidden(*[512] * n) for n in (1, 2, 4, 8)},
    "images in a batch": {n: BASE._replace(batch_size=n) for n in (16, 128, 1024)},
    "images in an epoch": {n: BASE._replace(n_images=n) for n in (1_024, 4_096, 16_384)},
}


def growth_turns(rounds: int) -> int:
    """Return the number of turns of `measure_growth`."""
    workloads = {workload for sweep in SWEEPS.values() for workload in sweep.values()}
    return len(workloads) * len(CONTENDERS) * (rounds + 1)


def measure_growth(scratch: Path, rounds: int, threads: int, announce: Announce) -> Result:
    """Return the seconds of each contender by varied quantity and value."""
    known: dict[Workload, Result] = {}
    growth: Result = {}
    for title, sweep in SWEEPS.items():
        growth[title] = []
        for value, workload in sweep.items():
            if workload not in known:
                prepare(workload, scratch)
                chosen = entries(workload)
                jobs = {name: Job(chosen[name], workload, scratch, threads) for name in CONTENDERS}
                known[workload] = measure(jobs, rounds, announce)
            growth[title].append({"value": value, "contenders": known[workload]})
    return growth
