"""The measurements of check.py, each in its process, which writes a line per result.

    python -m bench.gpu.jobs peaks torch:cuda --out FILE --seconds 20
    python -m bench.gpu.jobs steps cupy --out FILE --seconds 60
    python -m bench.gpu.jobs steps "torch, compiled" --out FILE --seconds 60
    python -m bench.gpu.jobs launches cupy --out FILE --seconds 30
    python -m bench.gpu.jobs transfers cupy --out FILE --seconds 10
    python -m bench.gpu.jobs record torch:cuda --out FILE --seconds 60

``--tiny`` takes small networks and little data, for a trial without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.gpu.summary import NOT_REACHED
from bench.peers.contest import Task
from bench.suite.contenders import GPU_PEERS
from bench.suite.epochs import make_epoch
from bench.suite.roofline import operations
from bench.suite.workloads import WORKLOADS, Workload, load
from mlp_xp.backends import Backend, get_backend
from mlp_xp.backends._cuda.captured import report
from mlp_xp.nn.layers import Dense
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import Streamed

__all__ = ["PRECISIONS", "chosen_workloads", "main"]

PRECISIONS = ("float32", "tf32", "bf16")
LEAST_ROUNDS, MOST_ROUNDS = 3, 30
# Steps before any is timed: compilers and captures have done their work by then. A trial has fewer.
WARM_STEPS, TRIAL_STEPS = 100, 4
# What a backend of CuPy that rounds operands to 16 bits is called, see sixteen_bits.py.
ROUNDING = ", 16-bit operands"
# Seconds for imports before a training, and for reading its results; and for a last case of steps.
AROUND, ENDING = 15, 5

Line = dict[str, Any]


def backend_of(spec: str, precision: str = "float32") -> Backend:
    spec, _, rounds = spec.partition(", ")
    name, _, device = spec.partition(":")
    backend: Any = get_backend(name, device or None)
    backend = backend if precision == "float32" else backend.with_precision(precision)
    if rounds:
        sixteen_bits: Any = importlib.import_module("bench.gpu.sixteen_bits")
        backend = sixteen_bits.rounding_operands(backend)
    return backend


def chosen_workloads(*, tiny: bool) -> list[Workload]:
    """Return the networks, the goals' networks first."""
    by_name = {workload.name: workload for workload in WORKLOADS}
    wide = by_name["wide"]._replace(n_images=50_000)
    medium = by_name["medium"]._replace(n_images=50_000)
    chosen = [
        medium._replace(name="goal", widths=(3072, 1024, 512, 10)),
        by_name["tiny"],
        medium,
        by_name["lab"]._replace(n_images=50_000),
        wide,
        wide._replace(name="wide-4096", batch_size=4096),
    ]
    if tiny:
        return [
            w._replace(
                widths=(w.widths[0], *(min(n, 16) for n in w.widths[1:])),
                batch_size=16,
                n_images=24,  # The last batch has fewer.
            )
            for w in chosen[:2]
        ]
    return chosen


def rounds(epoch: Callable[[], object], seconds: float, n_warm: int = 2) -> list[float]:
    """Return the seconds of epochs, after some that compile and warm up."""
    for _ in range(n_warm):
        epoch()
    taken: list[float] = []
    while len(taken) < LEAST_ROUNDS or (sum(taken) < seconds and len(taken) < MOST_ROUNDS):
        start = time.perf_counter()
        epoch()
        taken.append(time.perf_counter() - start)
    return taken


def count_launches(epoch: Callable[[], object], n_steps: int, contender: str) -> float | None:
    """Return launches of kernels and graphs for each step of an epoch, None where unknown."""
    with contextlib.suppress(ImportError):
        if "cupy" not in contender:
            raise ImportError
        from cupy import _launch  # The stand-in of the tests counts them itself.

        _launch.launches.clear()
        epoch()
        return sum(_launch.launches.values()) / n_steps
    with contextlib.suppress(ImportError):
        import torch

        if torch.cuda.is_available():
            from torch.profiler import ProfilerActivity, profile

            # CUPTI sees the launches of every library in the process.
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
                epoch()
            calls = sum(e.count for e in seen.key_averages() if "Launch" in e.key and "cu" in e.key)
            return calls / n_steps if calls else None
    return None


class Measure(NamedTuple):
    """A function of an epoch, its steps and its contender, and when it is called no longer."""

    run: Callable[[Callable[[], object], int, str], Line]
    end: float


Case = tuple[Workload, str]


def cases_of(*, tiny: bool, counts: bool) -> list[Case]:
    """Return networks and precisions; launches are the same in all, and counted in two networks."""
    workloads = chosen_workloads(tiny=tiny)[: 2 if counts else None]
    precisions = ("float32",) if counts else ("tf32", "float32", "bf16")
    return [(w, precision) for w in workloads for precision in precisions]


@functools.lru_cache(maxsize=2)
def loaded(data: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels, read and made once for all cases."""
    x, y, _ = load(data, n)
    return x, y


def our_steps(spec: str, cases: list[Case], measure: Measure, part: str) -> Iterator[Line]:
    """Yield the steps of this library on a backend, eager and in loops."""
    runs = []
    for workload, precision in cases:
        runs.append((workload, precision, "captured", spec))
        if precision == "bf16" and spec.startswith("cupy"):
            runs.append((workload, precision, "captured", spec + ROUNDING))
        runs.append((workload, precision, "eager", spec))
    for workload, precision, mode, of in runs:

        def make(
            workload: Workload = workload,
            precision: str = precision,
            mode: str = mode,
            of: str = of,
        ) -> Any:
            backend = backend_of(of, precision)
            if mode == "eager":
                backend.loop = lambda body: None  # type: ignore[method-assign]
            x, y = loaded(workload.data, workload.n_images)
            return make_epoch(backend, workload, x, y, "resident"), len(x)

        facts = {"contender": f"mlp_xp, {of}", "mode": mode, "precision": precision}
        yield step_line(part, workload, make, facts, measure)


def peer_steps(
    name: str, spec: str, cases: list[Case], measure: Measure, part: str
) -> Iterator[Line]:
    """Yield the steps of another program on the device of a backend."""
    library, module, options = GPU_PEERS[name]
    if library == "torch":
        options = options | {"device": spec.partition(":")[2] or "cuda"}
    for workload, precision in cases:

        def make(workload: Workload = workload, precision: str = precision):
            x, y = loaded(workload.data, workload.n_images)
            x = (x - np.float32(x.mean())) / np.float32(x.std())
            task = Task(
                workload.widths, workload.activation, "adam", 0.001, workload.batch_size, x, y, 1
            )
            make_peer = importlib.import_module(f"bench.peers.{module}").make
            contender = make_peer(task, precision=precision, **options)
            return partial(contender.train, 1), len(x)

        facts = {"contender": name, "precision": precision}
        yield step_line(part, workload, make, facts, measure)


def step_line(
    part: str, workload: Workload, make: Callable[[], Any], facts: Line, measure: Measure
) -> Line:
    """Return the result of a contender at a network, or why there is none."""
    line = {"part": part, "workload": workload.name, "batch": workload.batch_size, **facts}
    if time.monotonic() > measure.end:
        return line | {"cannot_run": NOT_REACHED}
    try:
        with refusals() as refused:
            epoch, n_images = make()
            found = measure.run(epoch, -(-n_images // workload.batch_size), facts["contender"])
        if refused and facts.get("mode") == "captured":
            raise RuntimeError(refused[0].getMessage())  # These were eager steps.
    except Exception as error:  # Whatever another program or a card may raise.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return line | {"cannot_run": reason[:300]}
    return line | found | {"flop": operations(workload.widths, workload.batch_size, train=True)}


@contextlib.contextmanager
def refusals() -> Iterator[list[logging.LogRecord]]:
    """Collect why steps were not captured."""
    handler = BufferingHandler(1_000)
    log = logging.getLogger("mlp_xp.backends._cuda.captured")
    log.addHandler(handler)
    report.cache_clear()  # It says each reason once.
    try:
        yield handler.buffer
    finally:
        log.removeHandler(handler)


def time_steps(
    seconds: float, warm: int, epoch: Callable[[], object], n_steps: int, contender: str
) -> Line:
    taken = rounds(epoch, seconds, 1 + -(-warm // n_steps))
    return {"step_seconds": [x / n_steps for x in taken]}


def count_steps(warm: int, epoch: Callable[[], object], n_steps: int, contender: str) -> Line:
    for _ in range(1 + -(-warm // n_steps)):
        epoch()
    return {"launches": count_launches(epoch, n_steps, contender)}


def peaks(spec: str, *, tiny: bool) -> Iterator[Line]:
    """Yield the rate of a large product in each precision, by this library's backend."""
    n = 64 if tiny else 8192
    runs = [(spec, precision) for precision in PRECISIONS]
    if spec.startswith("cupy"):
        runs.append((spec + ROUNDING, "bf16"))
    for of, precision in runs:
        line: Line = {"part": "peaks", "backend": of, "precision": precision, "width": n}
        try:
            backend = backend_of(of, precision)
            with backend.scope():
                multiply = _large_product(backend, precision, n)

                def product(multiply: Any = multiply, backend: Backend = backend) -> None:
                    for _ in range(10):
                        multiply()
                    backend.synchronize()

                taken = rounds(product, 0.5)
        except Exception as error:
            yield line | {"cannot_run": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        else:
            yield line | {"flops": 10 * 2 * n**3 / sorted(taken)[len(taken) // 2]}


def _large_product(backend: Backend, precision: str, n: int) -> Callable[[], object]:
    xp = backend.xp
    a = backend.put(np.ones((n, n), np.float32))
    if backend.name == "cupy":  # Its low precisions are inside of the product.
        layer = Dense(a, backend.put(np.zeros(n, np.float32)))
        return lambda: backend.kernels.dense(layer, a, xp=xp)[0]
    if precision == "bf16":
        a = xp.astype(a, xp.bfloat16)
    return lambda: a @ a


def transfers(spec: str, *, tiny: bool) -> Iterator[Line]:
    """Yield the rates of CIFAR-10 batches to the device: pageable, pinned, overlapped."""
    backend = backend_of(spec)
    x, y, source = load("cifar10", 256 if tiny else 50_000)
    for rows in (128, 1024):
        chunks = [x[start : start + rows] for start in range(0, len(x), rows)]
        data = Streamed(backend, x, y, "float32")

        def pageable(chunks: Any = chunks) -> None:
            for chunk in chunks:
                _copy_pageable(backend, chunk)
            backend.synchronize()

        def pinned(chunks: Any = chunks) -> None:
            for chunk in chunks:
                backend.put(chunk)
            backend.synchronize()

        def overlapped(rows: int = rows, data: Streamed = data) -> None:
            for batch in data.epoch(plan_epoch(len(x), rows, seed=0)):
                del batch
            backend.synchronize()

        for how, move in (("pageable", pageable), ("pinned", pinned), ("overlapped", overlapped)):
            line = {"part": "transfers", "backend": spec, "how": how, "rows": rows, "data": source}
            try:
                with backend.scope():
                    taken = rounds(move, 0.3)
            except Exception as error:
                yield line | {"cannot_run": f"{type(error).__name__}: {error}"[:300]}
            else:
                yield line | {"bytes_per_second": x.nbytes / sorted(taken)[len(taken) // 2]}


def _copy_pageable(backend: Backend, chunk: np.ndarray) -> None:
    """Copy without pinned memory, as a library does that knows nothing of it."""
    if backend.name == "cupy":
        import cupy

        cupy.empty(chunk.shape, chunk.dtype).set(chunk)
    elif backend.name == "torch":
        import torch

        torch.from_numpy(chunk).to(backend.device)
    else:
        raise NotImplementedError(f"{backend.name} chooses by itself")


def record(spec: str, folder: Path | None, *, tiny: bool, seconds: float) -> Iterator[Line]:
    """Yield the accuracy of the recipe `record` in the time that is left.

    The data is CIFAR-10, or the images of it that the folder has in ``data``.
    """
    from bench.studies.speedrun import run_seed
    from mlp_xp.datasets import load_cifar10, load_digits

    name, _, device = spec.partition(":")
    words = ["train", "--backend", name, *(["--device", device] if device else [])]
    max_time = 3 if tiny else int(seconds) - AROUND
    line: Line = {"part": "record", "backend": spec, "max_time": max_time}
    words += ["--max-time", str(max_time)]
    if folder is not None:
        os.chdir(folder)  # The loader looks in `data` of the folder that Python runs in.
    if tiny:
        words += ["--data", "digits" if folder is None else "cifar10", "--hidden", "16"]
    else:
        words += ["--recipe", "record"]
    n_images = len((load_digits if folder is None else load_cifar10)().x_train)
    try:
        yield line | {"n_images": n_images} | run_seed(words, 0)
    except subprocess.CalledProcessError as error:  # It has said why.
        sys.exit(error.returncode)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    jobs = ["peaks", "steps", "launches", "transfers", "record"]
    parser.add_argument("job", choices=jobs)
    parser.add_argument("contender", help="a backend, e.g. torch:cuda, or the name of a peer")
    parser.add_argument("--spec", default="", help="the backend whose device a peer uses")
    parser.add_argument("--folder", type=Path, help="has CIFAR-10 in data, for record")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(argv)
    cases = cases_of(tiny=args.tiny, counts=args.job == "launches")
    warm = TRIAL_STEPS if args.tiny else WARM_STEPS
    measure = Measure(partial(count_steps, warm), math.inf)
    if args.job == "steps":
        # A third is timed. The last cases are left out before this process is stopped.
        end = math.inf if args.tiny else time.monotonic() + args.seconds - ENDING
        seconds = 0.0 if args.tiny else args.seconds / 3 / len(cases)
        measure = Measure(partial(time_steps, seconds, warm), end)
    if args.job in ("steps", "launches"):
        if args.contender in GPU_PEERS:
            lines = peer_steps(args.contender, args.spec, cases, measure, args.job)
        else:
            lines = our_steps(args.contender, cases, measure, args.job)
    elif args.job == "record":
        lines = record(args.contender, args.folder, tiny=args.tiny, seconds=args.seconds)
    else:
        lines = {"peaks": peaks, "transfers": transfers}[args.job](args.contender, tiny=args.tiny)
    with args.out.open("a") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
