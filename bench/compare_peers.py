"""This library on NumPy against scikit-learn's MLP and torch's eager modules, in one run.

    python bench/compare_peers.py --json peers.json

The network is 3072-512-512-10 with ReLU, trained by Adam in float32 on shuffled batches of 128.
Prints Markdown. The contenders take turns, an epoch each (A B C A B C ...), so that a slow spell of
the machine hits them all, after one epoch that warms up.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from environment import environment, thread_pools, usable_cpus
from workloads import WORKLOADS, load

WORKLOAD = next(workload for workload in WORKLOADS if workload.name == "medium")
ALPHA = 1e-4  # The L2 penalty of both MLPClassifiers. The torch contenders are spared it.

Epoch = Callable[[], None]


class Images(NamedTuple):
    """The same rows as they come and ready for use: float32, each feature standardised."""

    raw: np.ndarray
    scaled: np.ndarray
    labels: np.ndarray


# --- contenders: each gives a function that trains one epoch -------------------------------------


def make_ours(images: Images, threads: int, *, raw: bool) -> Epoch:
    from mlp_xp import MLPClassifier

    model = MLPClassifier(
        WORKLOAD.widths[1:-1],
        alpha=ALPHA,
        batch_size=WORKLOAD.batch_size,
        random_state=0,
        backend="numpy",
        input_scaling="standardize" if raw else None,
    )
    x = images.raw if raw else images.scaled
    return partial(model.partial_fit, x, images.labels, classes=np.arange(10))


def make_sklearn(images: Images, threads: int) -> Epoch:
    from sklearn.neural_network import MLPClassifier

    # partial_fit is one epoch of fit. Both estimators check their input in each of them: 12 ms for
    # 20,000 images.
    model = MLPClassifier(
        WORKLOAD.widths[1:-1], alpha=ALPHA, batch_size=WORKLOAD.batch_size, random_state=0
    )
    return partial(model.partial_fit, images.scaled, images.labels, classes=np.arange(10))


def make_torch(images: Images, threads: int, **options: Any) -> Epoch:
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(WORKLOAD.widths, WORKLOAD.widths[1:], strict=False):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), **options)
    criterion = nn.CrossEntropyLoss()
    x, y = torch.from_numpy(images.scaled), torch.from_numpy(images.labels).long()

    def epoch() -> None:
        # Rows are taken by index: a DataLoader would collate them one by one.
        for rows in torch.randperm(len(x)).split(WORKLOAD.batch_size):
            optimizer.zero_grad()
            loss = criterion(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()

    return epoch


OURS = "mlp_xp, NumPy, uint8 scaled by itself"
CONTENDERS: dict[str, Callable[[Images, int], Epoch]] = {
    OURS: partial(make_ours, raw=True),
    "mlp_xp, NumPy, scaled float32": partial(make_ours, raw=False),
    "scikit-learn MLPClassifier": make_sklearn,
    "torch nn.Sequential, Adam": make_torch,
    "torch nn.Sequential, Adam(fused=True)": partial(make_torch, fused=True),
}


# --- turns ---------------------------------------------------------------------------------------


def work(pipe: Connection, name: str, n_images: int, threads: int) -> None:
    """Train an epoch whenever the pipe says so, and send back its seconds."""
    raw, labels, source = load(WORKLOAD.data, n_images)
    scaled = raw.astype(np.float32)
    scaled -= scaled.mean(axis=0)
    scaled /= scaled.std(axis=0)
    epoch = CONTENDERS[name](Images(raw, scaled, labels), threads)
    epoch()
    pipe.send({"data": source, "images": len(raw), "thread_pools": thread_pools()})
    while pipe.recv():
        start = time.perf_counter()
        epoch()
        pipe.send(time.perf_counter() - start)


def measure(n_images: int, rounds: int, threads: int) -> dict[str, dict[str, Any]]:
    """Give the seconds of each contender's epochs, and what it worked with."""
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(threads)
    # Each has a process to itself, as its user would run it, and sleeps while another's turn is on:
    # the threads of OpenBLAS and of OpenMP look for work before they sleep, and one process would
    # have both.
    context = multiprocessing.get_context("spawn")
    pipes, results = {}, {}
    for name in CONTENDERS:
        pipes[name], end = context.Pipe()
        context.Process(target=work, args=(end, name, n_images, threads), daemon=True).start()
        end.close()
        # Wait until it is warm, so that no two compute at a time.
        results[name] = {**pipes[name].recv(), "seconds": []}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            time.sleep(0.1)  # The threads of the one before go on spinning for some 20 ms.
            pipe.send(True)
            results[name]["seconds"].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    return results


def markdown(results: dict[str, dict[str, Any]], threads: int, facts: dict[str, Any]) -> str:
    """Tell the results in a table, with how many times as long as ours each one takes."""
    ours = results[OURS]["seconds"]
    images, rounds = results[OURS]["images"], len(ours)
    lines = [
        f"### {WORKLOAD.title}, Adam, float32",
        "",
        f"{images:,} images of {results[OURS]['data']} an epoch, {rounds} epochs in turns, "
        f"{threads} threads each.",
        "",
        "| contender | seconds an epoch, median | range | images/s | times ours (range) |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, result in results.items():
        seconds = result["seconds"]
        median = statistics.median(seconds)
        ratios = [theirs / own for theirs, own in zip(seconds, ours, strict=True)]
        lines.append(
            f"| {name} | {median:.3f} | {min(seconds):.3f} to {max(seconds):.3f} "
            f"| {images / median:,.0f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    pools = sorted({pool for result in results.values() for pool in result["thread_pools"]})
    lines += [
        "",
        "Ratios are the medians of those of each turn. The L2 penalty is "
        f"{ALPHA} for mlp_xp and scikit-learn, none for torch.",
        "",
        f"{facts['date']}; {facts['cpu']}, {facts['cpus']} CPUs, {facts['system']}; Python "
        f"{facts['python']}, {versions}; {', '.join(pools)}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000, help="an epoch (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="timed epochs (%(default)s)")
    parser.add_argument(
        "--threads", type=int, default=usable_cpus(), help="of each contender (all CPUs)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    args = parser.parse_args()

    results = measure(args.images, args.rounds, args.threads)
    facts = environment()
    if args.json:
        content = {"environment": facts, "threads": args.threads, "contenders": results}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    print(markdown(results, args.threads, facts))


if __name__ == "__main__":
    main()
