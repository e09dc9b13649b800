"""Rates of the machine: a large matrix product, and a copy of a large array.

Both take turns with the contenders, each in its own process, with products in float32.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from contenders import Entry
from contest import Contender, Task

__all__ = ["COPIED", "METERS", "OPERATIONS", "make", "product_rate"]

WIDTH = 2048
OPERATIONS = 2 * WIDTH**3  # Of one product.
FLOATS = 2**25  # 128 MiB, larger than any cache.
COPIED = 2 * 4 * FLOATS  # Bytes read and written.
# They need no data; the labels are the smallest file.
METERS = {
    name: Entry("rates", {"what": what}, data="labels", quick=quick, repeats=3)
    for name, what, quick in (
        ("product, NumPy", "numpy", True),
        ("product, torch", "torch", False),
        ("copy", "copy", True),
    )
}


def make(task: Task, *, what: str) -> Contender:
    work = {"numpy": _numpy, "torch": _torch, "copy": _copy}[what](task.threads)

    def train(repeats: int) -> float:
        for _ in range(repeats):
            work()
        return 0.0

    return Contender(train)


def product_rate(dtype: np.dtype) -> float:
    """Return operations per second of a large product of NumPy, on all processors."""
    return OPERATIONS / min(timeit.repeat(_numpy(dtype=dtype), number=1, repeat=6))


def _numpy(threads: int = 0, dtype: Any = np.float32) -> Callable[[], object]:
    a = np.random.default_rng(0).random((WIDTH, WIDTH), dtype=dtype)
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
    # NumPy copies without Python's lock.
    return lambda: list(pool.map(np.copyto, targets, sources))
