"""A lower bound on the time of an epoch: its matrix products and the bytes of its updates.

The bound assumes that all products run at the speed of a large float32 product, that updates read
and write their arrays at the speed of a large copy, and that everything else takes no time. Both
speeds are measured in turns with the contenders, each in its own process.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from bench.peers.contest import Contender, Task
from bench.suite.contenders import Entry
from bench.suite.records import Result
from bench.suite.tables import spread
from bench.suite.workloads import Workload

FLOAT = 4  # bytes
# How many parameter-sized arrays an update reads and writes, and how many an optimizer stores.
TRAFFIC = {
    "adam": 7,  # reads p, g, m, v; writes p, m, v
    "sgd": 5,  # reads p, g, v; writes p, v
    "descent": 3,  # reads p, g; writes p
}
STATE_ARRAYS = {"adam": 2, "sgd": 1, "descent": 0}
WIDTH = 2048
OPERATIONS = 2 * WIDTH**3  # Operations of the large product.
FLOATS = 2**25  # 128 MiB, larger than any cache.
COPIED = 2 * 4 * FLOATS  # Bytes read and written.
# Meters need no data, so they load the smallest file, the labels.
METERS = {
    name: Entry(__name__, {"what": what}, data="labels", quick=quick, repeats=3)
    for name, what, quick in (
        ("product, NumPy", "numpy", True),
        ("product, torch", "torch", False),
        ("copy", "copy", True),
    )
}


def operations(widths: tuple[int, ...], rows: int, *, train: bool) -> int:
    """Return the multiplications and additions in the products of all layers."""
    products = [fan_in * fan_out for fan_in, fan_out in pairwise(widths)]
    forward = sum(products)
    # dW and dx each cost as much as the forward pass; the first layer does not compute dx.
    backward = 2 * forward - products[0] if train else 0
    return 2 * rows * (forward + backward)


def parameter_bytes(widths: tuple[int, ...]) -> int:
    return FLOAT * sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))


def state_bytes(widths: tuple[int, ...], solver: str) -> int:
    """Return the bytes of parameters and optimizer state."""
    return (1 + STATE_ARRAYS[solver]) * parameter_bytes(widths)


def roofline(workload: Workload, rows: int, meters: Result) -> Result:
    """Return the work of an epoch or a prediction, and its time at the measured speeds."""
    medians = {
        name: spread(meter["seconds"]).median
        for name, meter in meters.items()
        if "cannot_run" not in meter
    }
    fastest = min((name for name in medians if name.startswith("product")), key=medians.get)
    product_rate, copy_rate = OPERATIONS / medians[fastest], COPIED / medians["copy"]
    train = workload.kind == "train"
    work = operations(workload.widths, rows, train=train)
    steps = -(-rows // workload.batch_size) if train else 0
    traffic = TRAFFIC[workload.solver] * parameter_bytes(workload.widths) * steps
    return {
        "operations": work,
        "bytes": traffic,
        "seconds": work / product_rate + traffic / copy_rate,
        "product": fastest,
        "product_rate": product_rate,
        "copy_rate": copy_rate,
    }


def make(task: Task, *, what: str) -> Contender:
    """Return a meter of the speed of products or copies, with the interface of a contender."""
    work = {"numpy": _numpy, "torch": _torch, "copy": _copy}[what](task.threads)

    def train(repeats: int) -> float:
        for _ in range(repeats):
            work()
        return 0.0

    return Contender(train)


def _numpy(threads: int) -> Callable[[], object]:
    a = np.random.default_rng(0).random((WIDTH, WIDTH), dtype=np.float32)
    out = np.empty_like(a)
    return lambda: np.matmul(a, a, out=out)


def _torch(threads: int) -> Callable[[], object]:
    import torch

    torch.set_num_threads(threads)
    a = torch.rand(WIDTH, WIDTH)
    out = torch.empty_like(a)
    return lambda: torch.matmul(a, a, out=out)


def _copy(threads: int) -> Callable[[], object]:
    sources = np.split(np.ones(FLOATS - FLOATS % threads, np.float32), threads)
    targets = [np.zeros_like(source) for source in sources]
    pool = ThreadPoolExecutor(threads)
    # NumPy releases the GIL while it copies.
    return lambda: list(pool.map(np.copyto, targets, sources))
