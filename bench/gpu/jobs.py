"""The measurements of check.py. Each runs in its own process, which writes a line per result.

    python -m bench.gpu.jobs peaks torch:cuda --out FILE --seconds 20
    python -m bench.gpu.jobs steps "torch, compiled" --spec torch:cuda --out FILE --seconds 60

`JOBS` lists the measurements. ``--tiny`` uses small networks, for a trial without a GPU.
"""

import argparse
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bench.gpu.install import IMAGES, find_cifar10
from bench.gpu.summary import NOT_REACHED
from bench.suite.contenders import GPU_PEERS
from bench.suite.roofline import operations
from bench.suite.turns import failure
from bench.suite.workloads import WORKLOADS, Task, Workload, backend_of, load, make_epoch
from mlp_xp.backends import Backend
from mlp_xp.backends._cuda import captured
from mlp_xp.nn.layers import Dense
from mlp_xp.training.data.epoch_plan import plan_epoch
from mlp_xp.training.data.placement import Streamed

LEAST_ROUNDS, MOST_ROUNDS = 3, 30
# Seconds for the imports and results of a training run, and for the last case of steps.
AROUND, ENDING = 15, 5

Line = dict[str, Any]
Epoch = Callable[[], object]
# The description of each case, and a function that measures it.
Cases = Iterable[tuple[Line, Callable[[], Line]]]


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


def steps(args: argparse.Namespace) -> Cases:
    """Measure times or launches of a contender's steps; launches are the same in all precisions."""
    name, spec = args.contender, args.spec or args.contender
    workloads, precisions = workloads_of(tiny=args.tiny), ("tf32", "float32", "bf16")
    pairs = [*product(workloads, precisions)]
    if args.tiny:  # All networks and precisions, but not each with each.
        goal, digits = workloads
        pairs = [(goal, "tf32"), (goal, "bf16"), (digits, "float32")]
    n_warm = 4 if args.tiny else 100  # The first steps include compilation and capture.
    # Measure for a third of the time.
    seconds = 0.0 if args.tiny else args.seconds / 3 / len(pairs)
    if args.job == "launches":
        pairs = [(workload, "float32") for workload in workloads[:2]]
    variants: list[Line] = [{"contender": name}]
    if name not in GPU_PEERS:
        variants = [{"contender": f"mlp_xp, {spec}", "mode": x} for x in ("captured", "eager")]

    def measure(workload: Workload, line: Line) -> Line:
        n_steps = -(-workload.n_images // workload.batch_size)
        with mock.patch.object(captured, "report") as refused:
            epoch = prepare(spec, line, workload)
            for _ in range(1 + -(-n_warm // n_steps)):
                epoch()
            if args.job == "launches":
                found = {"launches": count_launches(epoch, line["contender"]) / n_steps or None}
            else:
                taken = rounds(epoch, seconds, n_warm=0)
                found = {"step_seconds": [x / n_steps for x in taken]}
        if refused.called and line.get("mode") == "captured":
            reason = refused.call_args_list[0].args[1]
            raise RuntimeError(f"Training steps run one by one, without CUDA graphs ({reason}).")
        return found | {"flop": operations(workload.widths, workload.batch_size, train=True)}

    for (workload, precision), variant in product(pairs, variants):
        case = {"workload": workload.name, "batch": workload.batch_size, "precision": precision}
        yield variant | case, partial(measure, workload, variant | case)


def prepare(spec: str, line: Line, workload: Workload) -> Epoch:
    """Return a function that trains an epoch of a peer or of this library."""
    x, y, _ = loaded(workload.data, workload.n_images)
    if line["contender"] in GPU_PEERS:
        library, peer = GPU_PEERS[line["contender"]]
        x = (x - np.float32(x.mean())) / np.float32(x.std())
        device = {"device": spec.partition(":")[2] or "cuda"} if library == "torch" else {}
        task = Task(workload, x, y, 1)
        return partial(peer.make(task, precision=line["precision"], **device).train, 1)
    backend = backend_of(spec, line["precision"])
    if line["mode"] == "eager":
        backend.loop = lambda body: None
    return make_epoch(backend, workload, x, y, "resident")


# Images and labels are read or generated once for all cases.
loaded = functools.lru_cache(maxsize=2)(load)


def count_launches(epoch: Epoch, contender: str) -> int:
    """Count the launches of kernels and graphs in an epoch; return 0 if unknown."""
    with contextlib.suppress(ImportError):
        if "cupy" in contender:
            from cupy import _launch  # The tests' stand-in for CuPy counts launches itself.

            found = []
            for _ in range(3):  # Use the minimum: some epochs also copy a state.
                _launch.launches.clear()
                epoch()
                found.append(sum(_launch.launches.values()))
            return min(found)
    with contextlib.suppress(ImportError):
        import torch
        from torch.profiler import ProfilerActivity, profile

        if torch.cuda.is_available():
            # CUPTI counts the launches of all libraries in the process.
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
                epoch()
            events = seen.key_averages()
            return sum(e.count for e in events if "Launch" in e.key and "cu" in e.key)
    return 0


def workloads_of(*, tiny: bool) -> list[Workload]:
    """Return the networks, starting with those in the goals."""
    digits, lab, medium, wide = WORKLOADS
    goal = medium._replace(name="goal", widths=(3072, 1024, 512, 10))
    if tiny:
        few = {"batch_size": 16, "n_images": 24}  # The last batch is smaller.
        goal = goal._replace(widths=(3072, 16, 16, 10), **few)
        return [goal, digits._replace(widths=(64, 16, 10), **few)]
    larger = wide._replace(name="wide-4096", batch_size=4096)
    goal, *others = (w._replace(n_images=50_000) for w in (goal, medium, lab, wide, larger))
    return [goal, digits, *others]


# --- peaks, transfers and the recipe -------------------------------------------------------------


def peaks(args: argparse.Namespace) -> Cases:
    """Measure the speed of a large product in each precision with this library's backend."""
    n = 64 if args.tiny else 8192

    def measure(precision: str) -> Line:
        backend = backend_of(args.contender, precision)
        with backend.scope():
            multiply = _large_product(backend, precision, n)

            def run() -> None:
                for _ in range(10):
                    last = multiply()
                backend.synchronize(last)

            return {"flops": 10 * 2 * n**3 / statistics.median(rounds(run, 0.5))}

    for precision in ("float32", "tf32", "bf16"):
        line = {"backend": args.contender, "precision": precision, "width": n}
        yield line, partial(measure, precision)


def _large_product(backend: Backend, precision: str, n: int) -> Epoch:
    xp = backend.xp
    # A product of equal numbers would need less power, and therefore run faster.
    a = backend.put(np.random.default_rng(0).random((n, n), np.float32))
    if backend.name == "cupy":  # CuPy uses low precisions only in layers.
        layer = Dense(a, backend.put(np.zeros(n, np.float32)))
        return lambda: backend.kernels.dense(layer, a, xp=xp)[0]
    if precision == "bf16":
        a = xp.astype(a, xp.bfloat16)
    return lambda: a @ a


def transfers(args: argparse.Namespace) -> Cases:
    """Measure transfers of CIFAR-10 batches to the device: pageable, pinned, overlapped."""
    backend = backend_of(args.contender)
    x, y, source = load("cifar10", 256 if args.tiny else 50_000)

    def batches(how: str, rows: int) -> Iterable[Any]:
        if how == "overlapped":
            return Streamed(backend, x, y, "float32").epoch(plan_epoch(len(x), rows, seed=0))
        copy = backend.put if how == "pinned" else partial(_copy_pageable, backend)
        return (copy(x[start : start + rows]) for start in range(0, len(x), rows))

    def measure(how: str, rows: int) -> Line:
        def move() -> None:
            last = None
            for batch in batches(how, rows):
                last = batch
            backend.synchronize(last)

        with backend.scope():
            return {"bytes_per_second": x.nbytes / statistics.median(rounds(move, 0.3))}

    for n_rows, how in product((128, 1024), ("pageable", "pinned", "overlapped")):
        line = {"backend": args.contender, "how": how, "rows": n_rows, "data": source}
        yield line, partial(measure, how, n_rows)


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


def record(args: argparse.Namespace) -> Cases:
    """Measure the recipe `record` in the remaining time, on CIFAR-10 or the images in wheels/."""
    from bench.studies.speedrun import run_seed
    from mlp_xp.datasets import load_cifar10, load_digits

    name, _, device = args.contender.partition(":")
    max_time = 1 if args.tiny else int(args.seconds) - AROUND
    source = find_cifar10()
    path = IMAGES if source == IMAGES else None  # The loader finds other data.
    words = ["train", "--backend", name, *(["--device", device] if device else [])]
    words += ["--max-time", str(max_time), *(["--data-path", str(path)] if path else [])]
    words += ["--data", "digits" if source is None else "cifar10"]
    words += ["--hidden", "16"] if args.tiny else ["--recipe", "record"]
    n_images = len((load_digits() if source is None else load_cifar10(path)).x_train)
    line = {"backend": args.contender, "max_time": max_time, "n_images": n_images}
    try:
        result = run_seed(words, 0)
    except subprocess.CalledProcessError as error:  # The training has printed the reason.
        sys.exit(error.returncode)
    yield line, lambda: result


def probe(args: argparse.Namespace) -> Cases:
    """Exit with the reason if a backend does not work here."""
    try:
        backend_of(args.contender).prove()
    except Exception as error:  # A library may raise any error.
        sys.exit(failure(error)["cannot_run"])
    return ()


JOBS = {job.__name__: job for job in (probe, peaks, steps, transfers, record)} | {"launches": steps}


def results(args: argparse.Namespace) -> Iterator[Line]:
    """Yield each case with its measurement, or with the reason why there is none."""
    # Skip the last cases, so the process is not stopped.
    end = time.monotonic() + args.seconds - ENDING
    for line, measure in JOBS[args.job](args):
        line = {"part": args.job} | line
        if args.job == "steps" and time.monotonic() > end:
            yield line | {"cannot_run": NOT_REACHED}
            continue
        try:
            yield line | measure()
        except Exception as error:  # Another program or the GPU may cause any error.
            yield line | failure(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("contender", help="a backend, e.g. torch:cuda, or the name of a peer")
    parser.add_argument("--spec", help="the backend whose device a peer uses")
    parser.add_argument("--out", type=Path, default=os.devnull)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    with args.out.open("a", buffering=1) as file:  # Each line is written immediately.
        file.writelines(json.dumps(line) + "\n" for line in results(args))


if __name__ == "__main__":
    main()
