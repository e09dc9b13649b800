"""The full batch as in a classroom: float64, all at once, a second forward pass for accuracy."""

from __future__ import annotations

import numpy as np

from bench.peers.contest import Contender, Task

Weights = tuple[np.ndarray, ...]


def forward(weights: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    w1, b1, w2, b2 = weights
    a1 = 1 / (1 + np.exp(-(x @ w1 + b1)))
    z2 = a1 @ w2 + b2
    e = np.exp(z2 - z2.max(axis=1, keepdims=True))
    return a1, e / e.sum(axis=1, keepdims=True)


def epoch(
    weights: Weights, x: np.ndarray, labels: np.ndarray, learning_rate: float
) -> tuple[Weights, float, float]:
    """Run the formulas one by one; return weights, loss and accuracy."""
    n = x.shape[0]
    w2 = weights[2]
    a1, a2 = forward(weights, x)
    y = np.eye(w2.shape[1])[labels]
    loss = -np.mean(y * np.log(a2) + (1 - y) * np.log(1 - a2))
    dz2 = (a2 - y) / n
    dw2 = a1.T @ dz2
    db2 = dz2.sum(axis=0, keepdims=True)
    dz1 = (dz2 @ w2.T) * a1 * (1 - a1)
    dw1 = x.T @ dz1
    db1 = dz1.sum(axis=0, keepdims=True)
    steps = zip(weights, (dw1, db1, dw2, db2), strict=True)
    weights = tuple(weight - learning_rate * step for weight, step in steps)
    _, a2 = forward(weights, x)
    return weights, float(loss), float(np.mean(a2.argmax(axis=1) == labels))


def initial(widths: tuple[int, ...]) -> Weights:
    d_in, d_h, d_out = widths
    generator = np.random.default_rng(0)
    bound1, bound2 = (2 / (d_in + d_h)) ** 0.5, (2 / (d_h + d_out)) ** 0.5
    return (
        generator.uniform(-bound1, bound1, (d_in, d_h)),
        np.zeros((1, d_h)),
        generator.uniform(-bound2, bound2, (d_h, d_out)),
        np.zeros((1, d_out)),
    )


def make(task: Task) -> Contender:
    weights = initial(task.widths)
    x = task.x.astype(np.float64)

    def train(epochs: int) -> float:
        nonlocal weights
        for _ in range(epochs):
            weights, loss, _ = epoch(weights, x, task.y, task.learning_rate)
        return loss

    return Contender(train)
