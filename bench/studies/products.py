"""Matrix products of a dense layer with our kernel calls, OpenBLAS and oneDNN on this processor.

In bfloat16, all libraries get float32 factors and round them. Operands are in C order, as in a
layer. Products are called as in a step: our machine code computes several products per call.
"""

import contextlib
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from bench.suite.contenders import is_slow_in_bfloat16
from bench.suite.records import Result
from bench.suite.tables import Table, reasons, spread
from bench.suite.turns import Announce, Options, Part, call, in_turns

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
# Both factors, and whether each is transposed.
PRODUCTS = {
    "x W": ("x", "W", False, False),
    "xᵀ dy": ("x", "dy", True, False),
    "dy Wᵀ": ("dy", "W", False, True),
}
DTYPES = ("float32", "float64", "bfloat16")
OURS, IN_PLACE, PACKED, BLAS, TORCH = "mlp_xp", "in place", "packed", "OpenBLAS", "oneDNN"
LIBRARIES = (OURS, IN_PLACE, PACKED, BLAS, TORCH)

# A function, and how many times it computes a product.
Act: TypeAlias = tuple[Callable[[], Any], int]


def _ours(library: str, dtype: str, a: Any, b: Any, ta: bool, tb: bool) -> Act | None:
    from mlp_xp.backends._numpy.kernels import products
    from mlp_xp.backends._numpy.runtime import memory, tasks, thread_pool

    is_low = dtype == "bfloat16"
    has_none = is_low and not (library == PACKED and thread_pool.bfloat16_packing())
    if has_none or (library == IN_PLACE and tb):
        return None
    a, b = (memory.aligned(x.astype("float32" if is_low else dtype)) for x in (a, b))
    out = memory.empty((a.shape[ta], b.shape[1 - tb]), a.dtype)
    packed = products.Factors(library == PACKED and (ta or is_low), library == PACKED)
    if library == OURS:
        packed = products.choose_packed(a, b, out, ta=ta, tb=tb)
    found = products.product_tasks(a, b, out, packed, ta=ta, tb=tb, in_pairs=is_low)
    table, _ = tasks.table(found)
    thread_pool.link([table])
    steps, run = tasks.step_range(table), thread_pool.runner()
    n = steps[0, -1] = max(1, WORK // (out.size * a.shape[1 - ta]))
    return (lambda kept=(found, table): run(steps)), n


def _blas(dtype: str, a: Any, b: Any, ta: bool, tb: bool) -> Act | None:
    if dtype == "bfloat16":
        return None
    a, b = a.astype(dtype), b.astype(dtype)
    a, b = a.T if ta else a, b.T if tb else b
    out = np.empty((len(a), b.shape[1]), dtype)
    return (lambda: np.matmul(a, b, out=out)), 1


def _torch(dtype: str, a: Any, b: Any, ta: bool, tb: bool) -> Act | None:
    import torch

    is_low = dtype == "bfloat16"
    if is_low and is_slow_in_bfloat16():
        return None
    kept = [torch.from_numpy(x.astype("float32" if is_low else dtype)) for x in (a, b)]
    low = torch.bfloat16 if is_low else kept[0].dtype

    def run() -> Any:
        a, b = (x.to(low) for x in kept)
        return (a.T if ta else a) @ (b.T if tb else b)

    return run, 1


def rates(library: str, shapes: Any) -> dict[str, float]:
    from mlp_xp._utils.threads import usable_threads
    from mlp_xp.backends._numpy.runtime.thread_pool import thread_pool

    prepare, found = {BLAS: _blas, TORCH: _torch}.get(library, partial(_ours, library)), {}
    is_ours = library not in (BLAS, TORCH)
    with thread_pool(usable_threads()) if is_ours else contextlib.nullcontext():
        for batch, fan_in, fan_out in shapes:
            rng, sides = np.random.default_rng(0), f"{batch} x {fan_in} x {fan_out}"
            sizes = {"x": (batch, fan_in), "W": (fan_in, fan_out), "dy": (batch, fan_out)}
            arrays = {k: rng.standard_normal(size, dtype="f4") for k, size in sizes.items()}
            for (product, (a, b, ta, tb)), dtype in itertools.product(PRODUCTS.items(), DTYPES):
                if (prepared := prepare(dtype, arrays[a], arrays[b], ta, tb)) is None:
                    continue
                act, n = prepared
                act()
                best, end = np.inf, time.perf_counter() + SECONDS
                while (start := time.perf_counter()) < end or best == np.inf:
                    act()
                    best = min(best, time.perf_counter() - start)
                found[f"{product}, {sides}, {dtype}"] = 2e-9 * n * batch * fan_in * fan_out / best
    return found


def measure(options: Options, announce: Announce) -> Result:
    """Return the GFLOP/s of each product and library, one number per round."""
    shapes = QUICK if options.quick else SHAPES
    turns = {name: partial(call, rates, name, shapes) for name in options.chosen(LIBRARIES)}
    return in_turns(turns, options.rounds, announce)


def tables(found: Result) -> list[Table]:
    medians = {
        library: {name: spread([run[name] for run in rounds]).median for name in rounds[0]}
        for library, rounds in found.items()
        if isinstance(rounds, list)
    }
    missing = reasons({name: run for name, run in found.items() if name not in medians})
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
