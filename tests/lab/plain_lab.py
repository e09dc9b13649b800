"""The lab's formulas in plain NumPy, for the tests."""

from __future__ import annotations

import numpy as np

# Sums of some tens of float64 terms differ by far less.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


def lab_data(n=7, d_in=4, d_h=3, d_out=5, seed=0):
    """Return random weights, data and labels in float64, all read-only."""
    generator = np.random.default_rng(seed)
    shapes = (d_in, d_h), (1, d_h), (d_h, d_out), (1, d_out)
    arrays = [*(generator.standard_normal(shape) for shape in shapes)]
    arrays += [generator.standard_normal((n, d_in)), generator.integers(d_out, size=n)]
    for array in arrays:
        array.setflags(write=False)
    *weights, data, labels = arrays
    return tuple(weights), data, labels


def forward(weights, data):
    """Return the hidden outputs and the logits."""
    w1, b1, w2, b2 = weights
    a1 = 1 / (1 + np.exp(-(data @ w1 + b1)))
    return a1, a1 @ w2 + b2


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def gradients(learn, weights, data, targets):
    """Return what a step with a learning rate of 1 subtracts."""
    *new, _ = learn(*weights, data, targets, 1.0)
    return [old - array for old, array in zip(weights, new, strict=True)]


def plain_step(weights, data, labels, learning_rate):
    """Return the weights after a step that sums the gradients of the samples in a loop."""
    sums = [np.zeros_like(weight) for weight in weights]
    for x, label in zip(data, labels, strict=True):
        a1, z2 = forward(weights, x[None])
        dz2 = softmax(z2) - np.eye(z2.shape[1])[[label]]
        dz1 = dz2 @ weights[2].T * a1 * (1 - a1)
        for total, grad in zip(sums, (x[:, None] @ dz1, dz1, a1.T @ dz2, dz2), strict=True):
            total += grad
    return tuple(w - learning_rate * g / len(data) for w, g in zip(weights, sums, strict=True))


def assert_all_close(actual, expected, **tolerance):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, **(tolerance or TOLERANCE))
