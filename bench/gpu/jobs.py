"""The measurements of check.py. Each runs in its own process, which writes a line per result.

    python -m bench.gpu.jobs peaks torch:cuda --out FILE --seconds 20
    python -m bench.gpu.jobs steps "torch, compiled" --spec torch:cuda --out FILE --seconds 60
    python -m bench.gpu.jobs record torch:cuda --out FILE --seconds 60

The other measurements are launches and transfers. ``--tiny`` uses small networks and little data,
for a trial without a GPU.
"""

import argparse
import contextlib
import functools
import importlib
import json
import logging
import math
import os
import statistics
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
from bench.suite.contenders import GPU_PEERS
from bench.suite.roofline import operations
from bench.suite.turns import failure
from bench.suite.workloads import WORKLOADS, Workload, load, make_epoch
from mlp_xp.backends import Backend, get_backend
from mlp_xp.backends._cuda.captured import report
from mlp_xp.nn.layers import Dense
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import Streamed

PRECISIONS = ("float32", "tf32", "bf16")
LEAST_ROUNDS, MOST_ROUNDS = 3, 30
# The number of steps before timing, which include compilation and capture. A trial has fewer.
WARM_STEPS, TRIAL_STEPS = 100, 4
# The name suffix for CuPy with operands rounded to 16 bits; see sixteen_bits.py.
ROUNDING = ", 16-bit operands"
# Seconds for the imports and results of a training run, and for the last case of steps.
AROUND, ENDING = 15, 5

Line = dict[str, Any]
Epoch = Callable[[], object]


def backend_of(spec: str, precision: str = "float32") -> Backend:
    spec, _, rounds = spec.partition(", ")
    name, _, device = spec.partition(":")
    backend: Any = get_backend(name, device or None)
    backend = backend if precision == "float32" else backend.with_precision(precision)
    if rounds:
        sixteen_bits: Any = importlib.import_module("bench.gpu.sixteen_bits")
        backend = sixteen_bits.rounding_operands(backend)
    return backend


def attempt(line: Line, measure: Callable[[], Line]) -> Line:
    """Return a line with the measurement, or the reason why it is not possible."""
    try:
        return line | measure()
    except Exception as error:  # Another program or the GPU may cause any error.
        return line | failure(error)


def rounds(epoch: Epoch, seconds: float, n_warm: int = 2) -> list[float]:
    """Return the seconds of epochs after warm-up epochs, which include compilation."""
    for _ in range(n_warm):
        epoch()
    taken: list[float] = []
    while len(taken) < LEAST_ROUNDS or (sum(taken) < seconds and len(taken) < MOST_ROUNDS):
        start = time.perf_counter()
        epoch()
        taken.append(time.perf_counter() - start)
    return taken


# --- steps and launches --------------------------------------------------------------------------


class Measure(NamedTuple):
    """A function that measures an epoch, and the time after which no case is measured."""

    run: Callable[[Epoch, int, str], Line]
    end: float


def time_steps(seconds: float, warm: int, epoch: Epoch, n_steps: int, contender: str) -> Line:
    taken = rounds(epoch, seconds, 1 + -(-warm // n_steps))
    return {"step_seconds": [x / n_steps for x in taken]}


def count_launches(warm: int, epoch: Epoch, n_steps: int, contender: str) -> Line:
    """Count the launches of kernels and graphs per step of an epoch; return None if unknown."""
    for _ in range(1 + -(-warm // n_steps)):
        epoch()
    calls = 0
    try:
        if "cupy" not in contender:
            raise ImportError
        from cupy import _launch  # The tests' stand-in for CuPy counts launches itself.

        found = []
        for _ in range(3):  # Use the minimum: some epochs also copy a state.
            _launch.launches.clear()
            epoch()
            found.append(sum(_launch.launches.values()))
        calls = min(found)
    except ImportError:
        with contextlib.suppress(ImportError):
            import torch

            if torch.cuda.is_available():
                from torch.profiler import ProfilerActivity, profile

                # CUPTI counts the launches of all libraries in the process.
                with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
                    epoch()
                events = seen.key_averages()
                calls = sum(e.count for e in events if "Launch" in e.key and "cu" in e.key)
    return {"launches": calls / n_steps or None}


def workloads_of(*, tiny: bool) -> list[Workload]:
    """Return the networks, starting with those in the goals."""
    by_name = {workload.name: workload for workload in WORKLOADS}
    wide, medium, lab = (by_name[n]._replace(n_images=50_000) for n in ("wide", "medium", "lab"))
    goal = medium._replace(name="goal", widths=(3072, 1024, 512, 10))
    larger = wide._replace(name="wide-4096", batch_size=4096)
    if not tiny:
        return [goal, by_name["tiny"], medium, lab, wide, larger]
    return [
        w._replace(
            widths=(w.widths[0], *(min(n, 16) for n in w.widths[1:])),
            batch_size=16,
            n_images=24,  # The last batch is smaller.
        )
        for w in (goal, by_name["tiny"])
    ]


@functools.lru_cache(maxsize=2)
def loaded(data: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels, which are read or generated once for all cases."""
    x, y, _ = load(data, n)
    return x, y


def ways(name: str, spec: str, precision: str) -> Iterator[tuple[Line, Callable[[Workload], Any]]]:
    """Yield the details of each variant of a contender, and the function that creates its epoch."""

    def make_peer(workload: Workload) -> Epoch:
        x, y = loaded(workload.data, workload.n_images)
        x = (x - np.float32(x.mean())) / np.float32(x.std())
        task = workload._replace(solver="adam", learning_rate=0.001).task(x, y, 1)
        device = {"device": spec.partition(":")[2] or "cuda"} if library == "torch" else {}
        return partial(peer.make(task, precision=precision, **device).train, 1)

    def make_ours(of: str, mode: str, workload: Workload) -> Epoch:
        backend = backend_of(of, precision)
        if mode == "eager":
            backend.loop = lambda body: None  # type: ignore[method-assign]
        return make_epoch(backend, workload, *loaded(workload.data, workload.n_images), "resident")

    if name in GPU_PEERS:
        library, peer = GPU_PEERS[name]
        yield {"contender": name, "precision": precision}, make_peer
        return
    rounding = [spec + ROUNDING] if precision == "bf16" and spec.startswith("cupy") else []
    for of, mode in [(spec, "captured"), *((of, "captured") for of in rounding), (spec, "eager")]:
        facts = {"contender": f"mlp_xp, {of}", "mode": mode, "precision": precision}
        yield facts, partial(make_ours, of, mode)


def steps(part: str, name: str, spec: str, measure: Measure, *, tiny: bool) -> Iterator[Line]:
    """Yield the results for a contender; launches are the same in all precisions."""
    workloads, precisions = workloads_of(tiny=tiny), ("tf32", "float32", "bf16")
    if part == "launches":
        workloads, precisions = workloads[:2], ("float32",)
    for workload in workloads:
        for precision in precisions:
            for facts, make in ways(name, spec, precision):
                yield step_line(part, workload, partial(make, workload), facts, measure)


def step_line(
    part: str, workload: Workload, make: Callable[[], Epoch], facts: Line, measure: Measure
) -> Line:
    """Return the result of a contender for a network, or why there is none."""
    line = {"part": part, "workload": workload.name, "batch": workload.batch_size, **facts}
    if time.monotonic() > measure.end:
        return line | {"cannot_run": NOT_REACHED}

    def run() -> Line:
        with refusals() as refused:
            epoch = make()
            n_steps = -(-workload.n_images // workload.batch_size)
            found = measure.run(epoch, n_steps, facts["contender"])
        if refused and facts.get("mode") == "captured":
            raise RuntimeError(refused[0].getMessage())  # The steps ran eagerly.
        return found | {"flop": operations(workload.widths, workload.batch_size, train=True)}

    return attempt(line, run)


@contextlib.contextmanager
def refusals() -> Iterator[list[logging.LogRecord]]:
    """Collect the reasons why steps were not captured."""
    handler = BufferingHandler(1_000)
    log = logging.getLogger("mlp_xp.backends._cuda.captured")
    log.addHandler(handler)
    report.cache_clear()  # Each reason is logged once.
    try:
        yield handler.buffer
    finally:
        log.removeHandler(handler)


# --- peaks, transfers and the recipe -------------------------------------------------------------


def peaks(spec: str, *, tiny: bool) -> Iterator[Line]:
    """Yield the speed of a large product in each precision with this library's backend."""
    n = 64 if tiny else 8192

    def measure(of: str, precision: str) -> Line:
        backend = backend_of(of, precision)
        with backend.scope():
            multiply = _large_product(backend, precision, n)

            def product() -> None:
                for _ in range(10):
                    multiply()
                backend.synchronize()

            return {"flops": 10 * 2 * n**3 / statistics.median(rounds(product, 0.5))}

    runs = [(spec, precision) for precision in PRECISIONS]
    for of, precision in [*runs, *([(spec + ROUNDING, "bf16")] if spec.startswith("cupy") else [])]:
        line = {"part": "peaks", "backend": of, "precision": precision, "width": n}
        yield attempt(line, partial(measure, of, precision))


def _large_product(backend: Backend, precision: str, n: int) -> Epoch:
    xp = backend.xp
    a = backend.put(np.ones((n, n), np.float32))
    if backend.name == "cupy":  # CuPy uses low precisions only in layers.
        layer = Dense(a, backend.put(np.zeros(n, np.float32)))
        return lambda: backend.kernels.dense(layer, a, xp=xp)[0]
    if precision == "bf16":
        a = xp.astype(a, xp.bfloat16)
    return lambda: a @ a


def transfers(spec: str, *, tiny: bool) -> Iterator[Line]:
    """Yield the transfer rates of CIFAR-10 batches to the device: pageable, pinned, overlapped."""
    backend = backend_of(spec)
    x, y, source = load("cifar10", 256 if tiny else 50_000)

    def batches(how: str, rows: int) -> Iterator[Any]:
        if how == "overlapped":
            yield from Streamed(backend, x, y, "float32").epoch(plan_epoch(len(x), rows, seed=0))
        for start in range(0, len(x) if how != "overlapped" else 0, rows):
            chunk = x[start : start + rows]
            yield backend.put(chunk) if how == "pinned" else _copy_pageable(backend, chunk)

    def measure(how: str, rows: int) -> Line:
        def move() -> None:
            for batch in batches(how, rows):
                del batch
            backend.synchronize()

        with backend.scope():
            return {"bytes_per_second": x.nbytes / statistics.median(rounds(move, 0.3))}

    for rows in (128, 1024):
        for how in ("pageable", "pinned", "overlapped"):
            line = {"part": "transfers", "backend": spec, "how": how, "rows": rows, "data": source}
            yield attempt(line, partial(measure, how, rows))


def _copy_pageable(backend: Backend, chunk: np.ndarray) -> None:
    """Copy without pinned memory, as a library does by default."""
    if backend.name == "cupy":
        import cupy

        cupy.empty(chunk.shape, chunk.dtype).set(chunk)
    elif backend.name == "torch":
        import torch

        torch.from_numpy(chunk).to(backend.device)
    else:
        raise NotImplementedError(f"{backend.name} chooses the kind of memory itself")


def record(spec: str, folder: Path | None, *, tiny: bool, seconds: float) -> Iterator[Line]:
    """Yield the accuracy of the recipe `record` after the remaining time.

    The data are CIFAR-10, or the subset of its images in the folder ``data``.
    """
    from bench.studies.speedrun import run_seed
    from mlp_xp.datasets import load_cifar10, load_digits

    name, _, device = spec.partition(":")
    max_time = 3 if tiny else int(seconds) - AROUND
    words = ["train", "--backend", name, *(["--device", device] if device else [])]
    words += ["--max-time", str(max_time)]
    if folder is not None:
        os.chdir(folder)  # The loader searches `data` in the current folder.
    if tiny:
        words += ["--data", "digits" if folder is None else "cifar10", "--hidden", "16"]
    else:
        words += ["--recipe", "record"]
    n_images = len((load_digits if folder is None else load_cifar10)().x_train)
    line = {"part": "record", "backend": spec, "max_time": max_time, "n_images": n_images}
    try:
        yield line | run_seed(words, 0)
    except subprocess.CalledProcessError as error:  # The training has printed the reason.
        sys.exit(error.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    jobs = ["peaks", "steps", "launches", "transfers", "record"]
    parser.add_argument("job", choices=jobs)
    parser.add_argument("contender", help="a backend, e.g. torch:cuda, or the name of a peer")
    parser.add_argument("--spec", help="the backend whose device a peer uses")
    parser.add_argument("--folder", type=Path, help="has CIFAR-10 in data, for record")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    who, tiny, warm = args.contender, args.tiny, TRIAL_STEPS if args.tiny else WARM_STEPS
    measure = Measure(partial(count_launches, warm), math.inf)
    if args.job == "steps":
        # Measure for a third of the time. Skip the last cases, so the process is not stopped.
        end = math.inf if tiny else time.monotonic() + args.seconds - ENDING
        n_cases = len(PRECISIONS) * len(workloads_of(tiny=tiny))
        seconds = 0.0 if tiny else args.seconds / 3 / n_cases
        measure = Measure(partial(time_steps, seconds, warm), end)
    lines = {
        "peaks": partial(peaks, who, tiny=tiny),
        "transfers": partial(transfers, who, tiny=tiny),
        "record": partial(record, who, args.folder, tiny=tiny, seconds=args.seconds),
    }.get(args.job, partial(steps, args.job, who, args.spec or who, measure, tiny=tiny))
    with args.out.open("a") as file:
        for line in lines():
            file.write(json.dumps(line) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
