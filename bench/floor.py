"""The least time that an epoch could take: its matrix products and the bytes of its updates.

The products are counted as if all ran at the rate of a large one, the update as if it did nothing
but read and write its arrays at the rate of a large copy. Activations, the loss and the reading of
the data cost nothing here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from workloads import Workload

__all__ = ["Floor", "floor", "n_parameters", "operations", "state_bytes", "update_bytes"]

FLOAT = 4  # bytes
# Arrays of the parameters' size that an update reads and writes.
TRAFFIC = {
    "adam": 7,  # reads p, g, m, v; writes p, m, v
    "sgd": 5,  # reads p, g, v; writes p, v
    "descent": 3,  # reads p, g; writes p
}
SLOTS = {"adam": 2, "sgd": 1, "descent": 0}


class Floor(NamedTuple):
    """Work of an epoch or of a call that predicts, and its seconds at the machine's rates."""

    operations: int
    bytes: int
    product_seconds: float
    update_seconds: float

    @property
    def seconds(self) -> float:
        return self.product_seconds + self.update_seconds


def operations(widths: tuple[int, ...], rows: int, *, train: bool) -> int:
    """Count multiplications and additions of the products of all layers."""
    products = [fan_in * fan_out for fan_in, fan_out in pairwise(widths)]
    forward = sum(products)
    # dW costs as much as the way forward, and so does dx, which the first layer has no use for.
    backward = 2 * forward - products[0] if train else 0
    return 2 * rows * (forward + backward)


def n_parameters(widths: tuple[int, ...]) -> int:
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))


def update_bytes(widths: tuple[int, ...], solver: str, steps: int) -> int:
    return TRAFFIC[solver] * FLOAT * n_parameters(widths) * steps


def state_bytes(widths: tuple[int, ...], solver: str) -> int:
    """Count parameters with what the optimizer keeps of each."""
    return (1 + SLOTS[solver]) * FLOAT * n_parameters(widths)


def floor(workload: Workload, rows: int, product_rate: float, copy_rate: float) -> Floor:
    """Give the floor, with operations and bytes a second as they were measured."""
    train = workload.kind == "train"
    work = operations(workload.widths, rows, train=train)
    steps = -(-rows // workload.batch_size) if train else 0
    traffic = update_bytes(workload.widths, workload.solver, steps)
    return Floor(work, traffic, work / product_rate, traffic / copy_rate)
