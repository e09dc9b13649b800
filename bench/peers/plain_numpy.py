"""Full-batch training as in a classroom: float64, and a second forward pass for the accuracy."""

import numpy as np

from bench.suite.workloads import Contender, Task


def forward(
    w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    a1 = 1 / (1 + np.exp(-(x @ w1 + b1)))
    z2 = a1 @ w2 + b2
    e = np.exp(z2 - z2.max(axis=1, keepdims=True))
    return a1, e / e.sum(axis=1, keepdims=True)


def initial(widths: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    d_in, d_h, d_out = widths
    generator = np.random.default_rng(0)
    bound1, bound2 = (2 / (d_in + d_h)) ** 0.5, (2 / (d_h + d_out)) ** 0.5
    w1 = generator.uniform(-bound1, bound1, (d_in, d_h))
    w2 = generator.uniform(-bound2, bound2, (d_h, d_out))
    return w1, np.zeros((1, d_h)), w2, np.zeros((1, d_out))


def make(task: Task) -> Contender:
    weights = initial(task.net.widths)
    x, labels = task.x.astype(np.float64), task.y

    def train(epochs: int) -> float:
        nonlocal weights
        for _ in range(epochs):
            w2 = weights[2]
            a1, a2 = forward(*weights, x)
            y = np.eye(w2.shape[1])[labels]
            loss = -np.mean(y * np.log(a2) + (1 - y) * np.log(1 - a2))
            dz2 = (a2 - y) / len(x)
            dz1 = (dz2 @ w2.T) * a1 * (1 - a1)
            grads = x.T @ dz1, dz1.sum(axis=0, keepdims=True)
            grads += a1.T @ dz2, dz2.sum(axis=0, keepdims=True)
            pairs = zip(weights, grads, strict=True)
            weights = tuple(w - task.net.learning_rate * dw for w, dw in pairs)
            _ = np.mean(forward(*weights, x)[1].argmax(axis=1) == labels)
        return float(loss)

    return Contender(train)
