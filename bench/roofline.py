"""A lower bound on the time of an epoch: its matrix products and the bytes of its updates.

All products run at the rate of a large one, and the update only reads and writes its arrays, at the
rate of a large copy. Activations, the loss and reading the data are free.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from workloads import Workload

__all__ = ["Roofline", "n_parameters", "operations", "roofline", "state_bytes", "update_bytes"]

FLOAT = 4  # bytes
# Arrays of the parameters' size that an update reads and writes.
TRAFFIC = {
    "adam": 7,  # reads p, g, m, v; writes p, m, v
    "sgd": 5,  # reads p, g, v; writes p, v
    "descent": 3,  # reads p, g; writes p
}
STATE_ARRAYS = {"adam": 2, "sgd": 1, "descent": 0}


class Roofline(NamedTuple):
    """Work of an epoch or of a prediction, and its seconds at the rates of the machine."""

    operations: int
    bytes: int
    product_seconds: float
    update_seconds: float

    @property
    def seconds(self) -> float:
        return self.product_seconds + self.update_seconds


def operations(widths: tuple[int, ...], rows: int, *, train: bool) -> int:
    """Return the multiplications and additions in the products of all layers."""
    products = [fan_in * fan_out for fan_in, fan_out in pairwise(widths)]
    forward = sum(products)
    # dW costs as much as the forward pass, and so does dx, which the first layer does not need.
    backward = 2 * forward - products[0] if train else 0
    return 2 * rows * (forward + backward)


def n_parameters(widths: tuple[int, ...]) -> int:
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))


def update_bytes(widths: tuple[int, ...], solver: str, steps: int) -> int:
    return TRAFFIC[solver] * FLOAT * n_parameters(widths) * steps


def state_bytes(widths: tuple[int, ...], solver: str) -> int:
    """Return the bytes of parameters and optimizer state."""
    return (1 + STATE_ARRAYS[solver]) * FLOAT * n_parameters(widths)


def roofline(workload: Workload, rows: int, product_rate: float, copy_rate: float) -> Roofline:
    """Return the bound for these rates, in operations and bytes per second."""
    train = workload.kind == "train"
    work = operations(workload.widths, rows, train=train)
    steps = -(-rows // workload.batch_size) if train else 0
    traffic = update_bytes(workload.widths, workload.solver, steps)
    return Roofline(work, traffic, work / product_rate, traffic / copy_rate)
