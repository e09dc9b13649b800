"""Matrix products of a dense layer with our kernel calls, OpenBLAS and oneDNN on this processor.

``python -m bench.studies.products`` prints the table; with a library as argument, it prints one
round as JSON. In bfloat16, all libraries get float32 factors and round them. Operands are in C
order, as in a layer. Products are called as in a step: a library once per product, our machine code
with several products per call.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from bench.suite.contenders import is_slow_in_bfloat16
from bench.suite.records import Result
from bench.suite.tables import Table, print_tables, reasons, spread
from bench.suite.turns import Announce, Options, Part, child, in_turns, say

SECONDS = 0.02  # Per measurement, after a warm-up; the fastest run counts.
WORK = 4_000_000  # Minimum number of multiplications per call of our machine code.
# Batch, fan in and fan out.
SHAPES = (
    (1, 512, 512), (1, 2048, 2048), (4, 512, 512), (8, 512, 512), (16, 256, 256), (32, 64, 100),
    (32, 1024, 1024), (64, 784, 256), (128, 100, 10), (128, 784, 100), (128, 512, 512),
    (128, 3072, 512), (200, 1000, 333), (256, 1024, 1024), (512, 4096, 4096), (1024, 2048, 2048),
    (1024, 2047, 2049), (1024, 3072, 2048), (1024, 2048, 10), (2048, 100, 100), (4096, 512, 512),
    (8192, 64, 64), (8192, 500, 150),
)  # fmt: skip
QUICK = ((128, 512, 512), (1024, 2047, 2049))
PRODUCTS = ("x W", "xᵀ dy", "dy Wᵀ")
DTYPES = ("float32", "float64", "bfloat16")
OURS, IN_PLACE, PACKED, BLAS, TORCH = "mlp_xp", "in place", "packed", "OpenBLAS", "oneDNN"
LIBRARIES = (OURS, IN_PLACE, PACKED, BLAS, TORCH)

# A function, and how many times it computes a product.
Act: TypeAlias = tuple[Callable[[], Any], int]


def operands(
    product: str, batch: int, fan_in: int, fan_out: int
) -> tuple[np.ndarray, np.ndarray, bool, bool]:
    """Return both float32 factors, and whether each is transposed."""
    rng = np.random.default_rng(0)
    x, W, dy = (
        rng.standard_normal(shape, dtype=np.float32)
        for shape in ((batch, fan_in), (fan_in, fan_out), (batch, fan_out))
    )
    return {"x W": (x, W, False, False), "xᵀ dy": (x, dy, True, False)}.get(
        product, (dy, W, False, True)
    )


def _ours(library: str) -> Callable[..., Act | None]:
    from mlp_xp.backends._numpy.kernels import products
    from mlp_xp.backends._numpy.native import jobs, memory, thread_pool

    def prepare(dtype: str, *given: Any) -> Act | None:
        is_low = dtype == "bfloat16"
        if is_low and (library != PACKED or not thread_pool.bfloat16_packing()):
            return None
        *factors, ta, tb = given
        if library == IN_PLACE and tb:
            return None
        a, b = (memory.aligned(x.astype("float32" if is_low else dtype)) for x in factors)
        out = memory.empty((a.shape[ta], b.shape[1 - tb]), a.dtype)
        packed = products.Factors(library == PACKED and (ta or is_low), library == PACKED)
        if library == OURS:
            packed = products.choose_packed(a, b, out, ta=ta, tb=tb)
        found = products.product_jobs(a, b, out, packed, ta=ta, tb=tb, in_pairs=is_low)
        table, _ = jobs.table(found)
        thread_pool.link([table])
        steps, run = jobs.step_range(table), thread_pool.runner()
        n = steps[0, -1] = max(1, WORK // (out.size * a.shape[1 - ta]))
        return (lambda kept=(found, table): run(steps)), n

    return prepare


def _blas(dtype: str, a: Any, b: Any, ta: bool, tb: bool) -> Act | None:
    if dtype == "bfloat16":
        return None
    a, b = a.astype(dtype), b.astype(dtype)
    a, b = a.T if ta else a, b.T if tb else b
    out = np.empty((len(a), b.shape[1]), dtype)
    return (lambda: np.matmul(a, b, out=out)), 1


def _torch(dtype: str, *given: Any) -> Act | None:
    import torch

    *factors, ta, tb = given
    is_low = dtype == "bfloat16"
    if is_low and is_slow_in_bfloat16():
        return None
    kept = [torch.from_numpy(x.astype("float32" if is_low else dtype)) for x in factors]
    low = torch.bfloat16 if is_low else kept[0].dtype

    def run() -> Any:
        a, b = (x.to(low) for x in kept)
        return (a.T if ta else a) @ (b.T if tb else b)

    return run, 1


def rates(library: str, shapes: Any) -> Iterator[tuple[str, float]]:
    """Yield the name of each product and its GFLOP/s."""
    prepare: Any = {BLAS: _blas, TORCH: _torch}.get(library) or _ours(library)
    for shape in shapes:
        for product in PRODUCTS:
            given = operands(product, *shape)
            for dtype in DTYPES:
                if (prepared := prepare(dtype, *given)) is None:
                    continue
                act, n = prepared
                act()
                best, end = np.inf, time.perf_counter() + SECONDS
                while (start := time.perf_counter()) < end or best == np.inf:
                    act()
                    best = min(best, time.perf_counter() - start)
                name = f"{product}, {' x '.join(map(str, shape))}, {dtype}"
                yield name, 2e-9 * n * float(np.prod([float(size) for size in shape])) / best


def measure(options: Options, announce: Announce) -> Result:
    """Return the GFLOP/s of each product and library, one number per round."""
    shapes = json.dumps(QUICK if options.quick else SHAPES)

    def act(library: str) -> Any:
        return child("-m", "bench.studies.products", library, shapes)

    return in_turns(options.chosen(LIBRARIES), options.rounds, act, announce)


def tables(found: Result) -> list[Table]:
    runs = {name: rounds for name, rounds in found.items() if isinstance(rounds, list)}
    missing = reasons({name: run for name, run in found.items() if name not in runs})
    medians = {
        library: {name: spread([run[name] for run in rounds]).median for name in rounds[0]}
        for library, rounds in runs.items()
    }
    rows = []
    for name in dict.fromkeys(name for rates in medians.values() for name in rates):
        own = medians.get(OURS if "bfloat16" not in name else PACKED, {}).get(name)
        others = [medians.get(library, {}).get(name) for library in LIBRARIES[1:]]
        best = max(filter(None, [own, *others]))
        cells = [f"{rate:.0f}" if rate else "" for rate in (own, *others)]
        rows.append([name, f"{own / best:.2f}" if own else "", *cells])
    columns = ["product, batch x in x out", "of the best", *LIBRARIES]
    return [Table(PART.title, columns, rows, missing)]


PART = Part("Products, in GFLOP/s", measure, tables)


def main(argv: list[str]) -> None:
    """Print the table, or the GFLOP/s of one library as JSON."""
    if not argv:
        print_tables([], tables(measure(Options(1), say)))
        return
    library, shapes = argv[0], json.loads(argv[1])
    with contextlib.ExitStack() as pool:
        if library in (OURS, IN_PLACE, PACKED):
            from mlp_xp._utils.threads import usable_threads
            from mlp_xp.backends._numpy.native.thread_pool import thread_pool

            pool.enter_context(thread_pool(usable_threads()))
        print(json.dumps(dict(rates(library, shapes))))


if __name__ == "__main__":
    main(sys.argv[1:])
