"""Megabytes per second of CIFAR-10 batches to the device and back, without any computation.

    pytest bench/test_transfer.py --benchmark-enable --benchmark-json=transfer.json

A round moves the whole set in batches. If a library uses the host's memory, `put` may copy nothing;
then no rate is reported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from workloads import load

from mlp_xp.backends import Backend
from mlp_xp.training.batches import Streamed
from mlp_xp.training.epochs import plan_epoch

ROWS = pytest.mark.parametrize("rows", [128, 1024, None], ids=["128", "1024", "all"])


@pytest.fixture
def images(benchmark: Any, n_images: int | None) -> tuple[np.ndarray, np.ndarray]:
    x, y, source = load("cifar10", 1024 if benchmark.disabled else n_images or 50_000)
    benchmark.extra_info |= {"images": len(x), "data": source}
    return x, y


@ROWS
@pytest.mark.benchmark(group="put")
def test_put(benchmark: Any, backend: Backend, images: Any, rows: int | None, rounds: int) -> None:
    x, _ = images
    chunks = split(x, rows)

    def put() -> None:
        for chunk in chunks:
            array = backend.put(chunk)
        finish(backend, array)

    benchmark.pedantic(put, rounds=rounds, warmup_rounds=1)
    copies = not share_memory(backend, backend.put(x), x)
    note(benchmark, "put", rows, x.nbytes if copies else 0)


@ROWS
@pytest.mark.benchmark(group="get")
def test_get(benchmark: Any, backend: Backend, images: Any, rows: int | None, rounds: int) -> None:
    x, _ = images

    def fresh() -> tuple[tuple[list[Any]], dict[str, Any]]:
        # JAX caches the host copy of an array: a second get would move nothing.
        arrays = [backend.put(np.array(chunk)) for chunk in split(x, rows)]
        finish(backend, arrays[-1])
        return (arrays,), {}

    def get(arrays: list[Any]) -> None:
        for array in arrays:
            backend.get(array)

    benchmark.pedantic(get, setup=fresh, rounds=rounds, warmup_rounds=1)
    array = backend.put(x)
    copies = not share_memory(backend, array, backend.get(array))
    note(benchmark, "get", rows, x.nbytes if copies else 0)


@pytest.mark.parametrize("rows", [128, 1024])
@pytest.mark.benchmark(group="feed")
def test_feed(benchmark: Any, backend: Backend, images: Any, rows: int, rounds: int) -> None:
    x, y = images
    data = Streamed(backend, x, y, "float32")
    plan = plan_epoch(len(x), rows, seed=0, pad=backend.fixed_shapes)

    def feed() -> None:
        for batch in data.epoch(plan):
            last = batch.x
        finish(backend, last)

    benchmark.pedantic(feed, rounds=rounds, warmup_rounds=1)
    note(benchmark, "feed, shuffled", rows, x.nbytes + y.nbytes)


def split(x: np.ndarray, rows: int | None) -> list[np.ndarray]:
    rows = rows or len(x)
    return [x[start : start + rows] for start in range(0, len(x), rows)]


def finish(backend: Backend, array: Any) -> None:
    """Wait for a transfer; JAX waits per array."""
    getattr(array, "block_until_ready", backend.synchronize)()


def share_memory(backend: Backend, array: Any, host: np.ndarray) -> bool:
    return backend.shares_host_memory and np.shares_memory(np.from_dlpack(array), host)


def note(benchmark: Any, transfer: str, rows: int | None, n_bytes: int) -> None:
    """Record the transfer, and its rate unless nothing was copied."""
    benchmark.extra_info |= {"transfer": transfer, "rows": rows or "all"}
    if benchmark.enabled:
        rate = n_bytes / 1e6 / benchmark.stats["median"] if n_bytes else None
        benchmark.extra_info["mb_per_second"] = rate
