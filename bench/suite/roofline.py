"""A lower bound on the time of an epoch: its matrix products and the bytes of its updates.

The bound assumes that all products run at the speed of a large float32 product, that updates read
and write their arrays at the speed of a large copy, and that everything else takes no time. Both
speeds are measured in turns with the contenders, each in its own process.
"""

import importlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from bench.suite.contenders import Entry
from bench.suite.records import Result
from bench.suite.tables import measured, spread
from bench.suite.workloads import Contender, Task, Workload

# How many parameter-sized arrays an optimizer stores. An update reads and writes the parameters and
# these arrays, and reads the gradient.
STATE_ARRAYS = {"adam": 2, "sgd": 1, "descent": 0}
WIDTH = 2048  # The width of the factors of the large product.
FLOATS = 2**25  # The large copy has 128 MiB, more than any cache.
# Meters need no data, so they load the smallest file, the labels.
_METER = Entry(__name__, data="labels", quick=True, repeats=3)
METERS = {
    "product, NumPy": _METER._replace(options={"what": "numpy"}),
    "product, torch": _METER._replace(options={"what": "torch"}, quick=False),
    "copy": _METER._replace(options={"what": "copy"}),
}


def operations(widths: tuple[int, ...], rows: int, *, train: bool) -> int:
    """Return the multiplications and additions in the products of all layers."""
    products = [fan_in * fan_out for fan_in, fan_out in pairwise(widths)]
    forward = sum(products)
    # dW and dx each cost as much as the forward pass; the first layer does not compute dx.
    backward = 2 * forward - products[0] if train else 0
    return 2 * rows * (forward + backward)


def parameter_bytes(widths: tuple[int, ...]) -> int:
    return 4 * sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))


def state_bytes(widths: tuple[int, ...], solver: str) -> int:
    return (1 + STATE_ARRAYS[solver]) * parameter_bytes(widths)


def roofline(workload: Workload, rows: int, meters: Result) -> Result:
    """Return the work of an epoch or a prediction, and its time at the measured speeds."""
    medians = {name: spread(taken).median for name, taken in measured(meters).items()}
    fastest = min((name for name in medians if name.startswith("product")), key=medians.get)
    product_rate = 2 * WIDTH**3 / medians[fastest]
    copy_rate = 2 * 4 * FLOATS / medians["copy"]  # Bytes are read and written.
    train = workload.kind == "train"
    work = operations(workload.widths, rows, train=train)
    steps = -(-rows // workload.batch_size) if train else 0
    n_passes = 3 + 2 * STATE_ARRAYS[workload.solver]
    traffic = n_passes * parameter_bytes(workload.widths) * steps
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
    if what == "copy":
        sources = np.split(np.ones(FLOATS - FLOATS % task.threads, np.float32), task.threads)
        targets = [np.zeros_like(source) for source in sources]
        pool = ThreadPoolExecutor(task.threads)
    else:
        library: Any = importlib.import_module(what)
        a: Any = np.random.default_rng(0).random((WIDTH, WIDTH), dtype=np.float32)
        if what == "torch":
            library.set_num_threads(task.threads)
            a = library.from_numpy(a)
        out = library.empty_like(a)

    def train(repeats: int) -> float:
        for _ in range(repeats):
            if what == "copy":  # NumPy releases the GIL while it copies.
                list(pool.map(np.copyto, targets, sources))
            else:
                library.matmul(a, a, out=out)
        return 0.0

    return Contender(train, lambda rows: train(1))
