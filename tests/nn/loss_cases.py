"""The losses that the tests go through."""

from __future__ import annotations

import re

import numpy as np

from mlp_xp.nn.losses import (
    OUTPUTS,
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Custom,
    Huber,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    SquaredError,
    Through,
    mean_loss,
)

MULTICLASS = [SoftmaxCrossEntropy(0.1), SoftmaxFocal()]
BINARY = [BinaryCrossEntropy(0.1), BinaryFocal()]
REAL = [SquaredError(), AbsoluteError(), Huber(0.7), Quantile(0.8), Poisson()]
THROUGH = [Through(SquaredError(), output) for output in OUTPUTS]


def squared(outputs, targets, *, xp):
    error = outputs - targets
    return 0.5 * xp.sum(error * error, axis=-1), lambda dlosses: error * dlosses[..., None]


def cross_entropy_of(p, targets, *, xp):
    losses = -xp.sum(targets * xp.log(p), axis=-1)
    return losses, lambda dlosses: -targets / p * dlosses[..., None]


CUSTOM = [Custom(squared), Custom(squared, "softplus"), Custom(squared, "softmax")]
ALL = [*MULTICLASS, *BINARY, *REAL, *THROUGH, *CUSTOM]


def named(loss) -> str:
    return re.sub(r"<function (\w+) at \w+>", r"\1", repr(loss))


def case(loss, dtype="float64", n=5, outputs=3):
    """Return logits, targets that suit the loss, and weights."""
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((n, outputs))
    if isinstance(loss, SoftmaxCrossEntropy | SoftmaxFocal):
        targets = rng.dirichlet(np.ones(outputs), n)
    elif isinstance(loss, Poisson):
        targets = rng.poisson(1.0, (n, outputs))
    else:
        targets = rng.random((n, outputs))
    weights = np.asarray([1, 3, 0, 2, 1])[:n]
    return tuple(array.astype(dtype) for array in (logits, targets, weights))


def evaluate(backend, loss, logits, targets, weights=None):
    """Return average and gradient, on the host."""
    with backend.scope():
        arrays = [None if a is None else backend.put(a) for a in (logits, targets, weights)]
        value, pullback = mean_loss(loss, *arrays, xp=backend.xp)
        return backend.get(value), backend.get(pullback())
