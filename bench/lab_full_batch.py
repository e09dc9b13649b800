"""One full-batch epoch of the lab against the same formulas written plainly in float64 NumPy.

    python bench/lab_full_batch.py --rows 54000 --repeats 5

The plain version is the one that a classroom writes: float64, the whole batch at once, and a second
way forward for the accuracy of each epoch. The two are timed in turns on random data in [0, 1], so
that a slow spell of the machine hits both; a large float32 product runs with them as the measure of
what the machine can do. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import array_api_compat
import numpy as np
from threadpoolctl import threadpool_info

import mlp_xp
from mlp_xp.lab import train_mlp

D_IN, D_H, D_OUT = 3072, 64, 10
LEARNING_RATE = 0.1
PRODUCT_WIDTH = 2048

Plain = tuple[np.ndarray, ...]


def plain_forward(
    w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    a1 = 1 / (1 + np.exp(-(x @ w1 + b1)))
    z2 = a1 @ w2 + b2
    e = np.exp(z2 - z2.max(axis=1, keepdims=True))
    return a1, e / e.sum(axis=1, keepdims=True)


def plain_epoch(
    w1: np.ndarray,
    b1: np.ndarray,
    w2: np.ndarray,
    b2: np.ndarray,
    x: np.ndarray,
    labels: np.ndarray,
) -> tuple[Plain, float, float]:
    """The formulas one after the other, on the whole batch."""
    n = x.shape[0]
    a1, a2 = plain_forward(w1, b1, w2, b2, x)
    y = np.eye(w2.shape[1])[labels]
    loss = -np.mean(y * np.log(a2) + (1 - y) * np.log(1 - a2))
    dz2 = (a2 - y) / n
    dw2 = a1.T @ dz2
    db2 = dz2.sum(axis=0, keepdims=True)
    dz1 = (dz2 @ w2.T) * a1 * (1 - a1)
    dw1 = x.T @ dz1
    db1 = dz1.sum(axis=0, keepdims=True)
    w1 = w1 - LEARNING_RATE * dw1
    b1 = b1 - LEARNING_RATE * db1
    w2 = w2 - LEARNING_RATE * dw2
    b2 = b2 - LEARNING_RATE * db2
    _, a2 = plain_forward(w1, b1, w2, b2, x)
    return (w1, b1, w2, b2), float(loss), float(np.mean(a2.argmax(axis=1) == labels))


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def row(name: str, times: list[float]) -> str:
    return (
        f"| {name} | {statistics.median(times):.3f} | {min(times):.3f} to {max(times):.3f} "
        f"| {len(times)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=54_000, help="samples (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns (default: %(default)s)")
    parser.add_argument(
        "--epochs", type=int, default=20, help="epochs of a timed train_mlp (default: %(default)s)"
    )
    args = parser.parse_args()

    generator = np.random.default_rng(0)
    data = generator.random((args.rows, D_IN), dtype=np.float32)
    labels = generator.integers(D_OUT, size=args.rows)
    bound1, bound2 = (2 / (D_IN + D_H)) ** 0.5, (2 / (D_H + D_OUT)) ** 0.5
    weights = (
        generator.uniform(-bound1, bound1, (D_IN, D_H)),
        np.zeros((1, D_H)),
        generator.uniform(-bound2, bound2, (D_H, D_OUT)),
        np.zeros((1, D_OUT)),
    )
    weights32 = tuple(weight.astype(np.float32) for weight in weights)
    data64 = data.astype(np.float64)
    square = generator.random((PRODUCT_WIDTH, PRODUCT_WIDTH), dtype=np.float32)

    # The first turn warms up, and shows that both compute the same.
    new, loss, accuracy = plain_epoch(*weights, data64, labels)
    *new32, accuracies, losses = train_mlp(*weights32, data, labels, LEARNING_RATE, 1)
    np.testing.assert_allclose(losses[0], loss, rtol=1e-5)
    np.testing.assert_allclose(accuracies[0], accuracy, atol=1e-3)
    for array, array32 in zip(new, new32, strict=True):
        np.testing.assert_allclose(array32, array, atol=1e-5)

    plain: list[float] = []
    lab: list[float] = []
    product: list[float] = []
    for _ in range(args.repeats):
        plain.append(seconds(lambda: plain_epoch(*weights, data64, labels)))
        # All epochs and the way forward at the end, shared out: what an epoch costs in all.
        lab.append(
            seconds(lambda: train_mlp(*weights32, data, labels, LEARNING_RATE, args.epochs))
            / args.epochs
        )
        product.append(seconds(lambda: square @ square))

    ratios = [p / q for p, q in zip(plain, lab, strict=True)]
    ways = 2 + 1 / args.epochs  # forward and back in each epoch, forward once more at the end
    rate = ways * 2 * args.rows * D_IN * D_H / statistics.median(lab) / 1e9
    product_rate = 2 * PRODUCT_WIDTH**3 / statistics.median(product) / 1e9
    threads = ", ".join(f"{i['internal_api']} {i['num_threads']}" for i in threadpool_info())
    print(f"### Full-batch epoch, {args.rows} x {D_IN}, {D_H} hidden, {D_OUT} classes\n")
    print("| version | seconds an epoch, median | range | turns |\n|---|---|---|---|")
    print(row("plain NumPy, float64", plain))
    print(row(f"mlp_xp.lab.train_mlp, float32, {args.epochs} epochs", lab))
    print(
        f"\nPlain takes **{statistics.median(ratios):.2f} times** as long "
        f"({min(ratios):.2f} to {max(ratios):.2f}, turn by turn)."
    )
    print(
        f"The lab's two large products run at {rate:.0f} GFLOP/s if all its time is counted as "
        f"theirs, {100 * rate / product_rate:.0f} % of a {PRODUCT_WIDTH}-wide square product's "
        f"{product_rate:.0f}."
    )
    print(
        f"\nmlp_xp {mlp_xp.__version__}, Python {platform.python_version()}, NumPy "
        f"{np.__version__}, array-api-compat {array_api_compat.__version__}; {platform.machine()}, "
        f"{os.cpu_count()} CPUs; threads: {threads}."
    )


if __name__ == "__main__":
    main()
