"""A model of how one training grows with the number of machines, from measured rates.

A step on n machines takes the time of one machine for its share of the batch, and what is left of
the sum of the gradients when the backward pass has ended. The network carries one sum after the
other, the last layer's first; a layer of many bytes is computed and summed in `PIECES`. Gradients
that travel are stored, which one machine does without, and the update reads them again: that takes
what two ranks without shared memory were measured to take beyond the rest, at the least batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bench.suite.records import Result
from bench.suite.spread import spread
from bench.suite.tables import Table, seconds

MACHINES = (2, 4, 8, 16, 32, 64)
APART = "2 ranks, sums by MPI alone"  # They stand for two machines.
LARGEST = 1 << 20  # Batch sizes are looked at up to here.
PIECES = 8  # Of the gradient of a layer, at most, of at least so many bytes:
PIECE_BYTES = 1 << 20


class Network(NamedTuple):
    """A network between machines: bytes a second each way, and seconds of a message."""

    name: str
    rate: float
    latency: float


# Nine tenths of the line rate; messages through the kernel's TCP, and by RDMA for the last.
NETWORKS = tuple(
    Network(f"{gigabits} Gbit/s", 0.9 * gigabits * 1e9 / 8, latency)
    for gigabits, latency in ((1, 50e-6), (10, 30e-6), (25, 20e-6), (100, 3e-6))
)


def compute_seconds(steps: dict[str, float], batch: float) -> float:
    """Return the seconds of a step on one machine, from those measured at some batch sizes."""
    sizes = sorted(map(int, steps))
    times = [steps[str(size)] for size in sizes]
    if batch >= sizes[-1]:
        return times[-1] + (batch - sizes[-1]) * (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])
    if batch <= sizes[0]:
        slope = (times[1] - times[0]) / (sizes[1] - sizes[0])
        return max(times[0] + (batch - sizes[0]) * slope, times[0] / 2)
    return float(np.interp(batch, sizes, times))


def sum_seconds(n: int, n_bytes: float, network: Network) -> float:
    """Return the seconds of a sum over n machines: halves travel, are summed, and travel back."""
    travel = 2 * (n - 1) / n * n_bytes / network.rate
    return travel + 2 * math.ceil(math.log2(n)) * network.latency


def measured_step(result: Result, batch: str, name: str) -> float:
    """Return the median seconds of a step of some ranks."""
    n_steps = -(-result["images"] // int(batch))
    return spread([taken / n_steps for taken in result["epochs"][batch][name]]).median


def own_sum(result: Result, batch: str) -> float:
    """Return the seconds of a step of two ranks of this machine: their rows, and the sum."""
    sums = result["sums"]["2"]
    return compute_seconds(result["steps"]["1"], int(batch) / 2) + float(sums[max(sums, key=int)])


def stored_seconds(result: Result) -> float:
    """Return the seconds by which gradients that are stored make a step longer."""
    least = min(result["epochs"], key=int)
    return max(0.0, measured_step(result, least, APART) - own_sum(result, least))


def step_seconds(result: Result, n: int, batch: float, network: Network) -> float:
    """Return the seconds of a step on n machines."""
    whole = compute_seconds(result["steps"]["2"], batch / n)
    if n == 1:
        return whole
    # Without any rows there is the update, which follows the sums.
    update = min(compute_seconds(result["steps"]["2"], 0), whole)
    sizes = [fan_in * fan_out for fan_in, fan_out in pairwise(result["network"])]
    # Forward, gradients of weights, and of the inputs of all layers but the first.
    work = 3 * sum(sizes) - sizes[0]
    done, arrived = sum(sizes), 0.0  # Forward.
    for layer in reversed(range(len(sizes))):
        done += sizes[layer] if layer else 0
        pieces = max(1, min(PIECES, 4 * sizes[layer] // PIECE_BYTES))
        for _ in range(pieces):
            done += sizes[layer] / pieces
            ready = (whole - update) * done / work
            arrived = max(arrived, ready) + sum_seconds(n, 4 * sizes[layer] / pieces, network)
    return arrived + update + stored_seconds(result)


def first_batch(pays: Callable[[int], bool]) -> str:
    """Return the least power of two from which a function of the batch size is true."""
    batch = LARGEST
    while batch >= 1 and pays(batch):
        batch //= 2
    return "more" if batch == LARGEST else f"{2 * batch:,}"


def growth_table(result: Result) -> Table:
    """Return the table of batch sizes from which numbers of machines pay, with its terms."""

    def cell(n: int, network: Network) -> str:
        def taken(machines: int, batch: int) -> float:
            return step_seconds(result, machines, batch, network)

        fewer = [1, *(m for m in MACHINES if m < n)]
        any_gain = first_batch(lambda b: min(taken(m, b) for m in fewer) > taken(n, b))
        half = first_batch(lambda b: taken(1, b) >= n / 2 * taken(n, b))
        return f"{any_gain} / {half}"

    rows = [[str(n), *(cell(n, network) for network in NETWORKS)] for n in MACHINES]
    latencies = ", ".join(f"{network.latency * 1e6:g}" for network in NETWORKS)
    note = (
        "The least batch size, a power of two, from which that many machines are faster than any "
        "smaller number / at least half as many times as fast as one. Each machine is like the one "
        f"measured, with two threads; networks carry nine tenths of their line rate, with "
        f"{latencies} µs for a message."
    )
    return Table("machines", ["machines", *(n.name for n in NETWORKS)], rows, note=note)


def check_table(result: Result) -> Table:
    """Return the table of the model beside what was measured on two ranks without shared memory.

    They sum with the processors that compute, so nothing is hidden.
    """
    rows = []
    for batch in result["epochs"]:
        total = own_sum(result, batch) + stored_seconds(result)
        step = measured_step(result, batch, APART)
        times = [seconds(total), seconds(step), f"{total / step:.2f}"]
        rows.append([f"{int(batch):,}", APART, *times])
    return Table("model", ["batch", "run", "step, model", "step, measured", "ratio"], rows)
