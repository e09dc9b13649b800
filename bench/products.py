"""The products of a training step by OpenBLAS, oneDNN and machine code, in turns.

    python bench/products.py lab medium

A product that is far below the large one's rate is where a step loses time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from environment import usable_cpus
from turns import Seconds, measure, set_threads
from workloads import WORKLOADS, Workload

__all__ = ["Shape", "main", "shapes"]

OPERATIONS = 4e9  # Of a turn.
LIBRARIES = ("NumPy", "torch", "machine code")


class Shape(NamedTuple):
    """C = A B : (m, n), with k terms each; which operand is stored transposed."""

    name: str
    m: int
    n: int
    k: int
    transpose_a: bool = False
    transpose_b: bool = False

    @property
    def operations(self) -> int:
        return 2 * self.m * self.n * self.k


def shapes(workload: Workload) -> Iterator[Shape]:
    """Yield the products of a step, the small ones of the last layer left out, and a large one."""
    batch = workload.batch_size
    for i, (fan_in, fan_out) in enumerate(pairwise(workload.widths[:-1]), 1):
        yield Shape(f"x{i} W{i}", batch, fan_out, fan_in)
        if i > 1:
            yield Shape(f"dy{i} W{i}^T", batch, fan_in, fan_out, transpose_b=True)
        yield Shape(f"x{i}^T dy{i}", fan_in, fan_out, batch, transpose_a=True)
    yield Shape("large", 2048, 2048, 2048)


class Job(NamedTuple):
    """A library and a product, sent to its process."""

    library: str
    shape: Shape
    threads: int
    repeats: int = 1  # `get_ready` returns the seconds of one product.

    def get_ready(self) -> Callable[[], Seconds]:
        shape, generator = self.shape, np.random.default_rng(0)
        a, b = (
            generator.random(sides[:: -1 if is_transposed else 1], dtype=np.float32)
            for sides, is_transposed in (
                ((shape.m, shape.k), shape.transpose_a),
                ((shape.k, shape.n), shape.transpose_b),
            )
        )
        c = np.empty((shape.m, shape.n), np.float32)
        n = max(3, int(OPERATIONS / shape.operations))
        if self.library == "machine code":
            return lambda: _by_machine_code(shape, a, b, c, n, self.threads)
        multiply, arrays = np.matmul, (a, b, c)
        if self.library == "torch":
            import torch

            torch.set_num_threads(self.threads)
            multiply, arrays = torch.matmul, tuple(map(torch.from_numpy, arrays))
        left, right, out = arrays
        left = left.T if shape.transpose_a else left
        right = right.T if shape.transpose_b else right

        def turn() -> Seconds:
            start = time.perf_counter()
            for _ in range(n):
                multiply(left, right, out=out)
            return Seconds((time.perf_counter() - start) / n)

        return turn


def _by_machine_code(
    shape: Shape, a: np.ndarray, b: np.ndarray, c: np.ndarray, n: int, threads: int
) -> Seconds:
    from mlp_xp.backends._numpy import jobs, thread_pool
    from mlp_xp.backends._numpy.memory import aligned

    a, b, c = map(aligned, (a, b, c))
    _, *sides, ta, tb = shape
    product = jobs.Product(False, ta, tb, *sides, a, a.shape[1], b, b.shape[1], c, c.shape[1], 0)
    records, _ = jobs.table([jobs.Job(product, is_shared=True)])
    with thread_pool.thread_pool(threads):
        thread_pool.link([records])
        run, turns = thread_pool.runner(), jobs.turn(records)
        run(turns)
        turns[0, -1] = n  # Steps.
        start = time.perf_counter()
        run(turns)
        return Seconds((time.perf_counter() - start) / n)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument("workloads", nargs="+", choices=names, metavar="WORKLOAD")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    args = parser.parse_args(argv)
    set_threads(args.threads)
    print(f"| product, GFLOP/s | {' | '.join(LIBRARIES)} |\n| --- |{' --: |' * len(LIBRARIES)}")
    chosen = [workload for workload in WORKLOADS if workload.name in args.workloads]
    for shape in dict.fromkeys(shape for workload in chosen for shape in shapes(workload)):
        jobs = {library: Job(library, shape, args.threads) for library in LIBRARIES}
        results = measure(jobs, args.rounds, lambda _: None)
        rates = [
            f"{shape.operations / statistics.median(result['seconds']) / 1e9:.0f}"
            if "seconds" in result
            else "-"
            for result in results.values()
        ]
        print(f"| {shape.name}: {shape.m} x {shape.k} x {shape.n} | {' | '.join(rates)} |")


if __name__ == "__main__":
    main()
