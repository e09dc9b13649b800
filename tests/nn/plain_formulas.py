"""Activations and losses as their formulas say, for NumPy and for torch, which differentiates."""

from __future__ import annotations

import math

from gradient import fourth_power

from mlp_xp.nn import losses


def softmax(z, xp):
    e = xp.exp(z)
    return e / xp.sum(e, axis=-1, keepdims=True)


PLAIN_ACTIVATIONS = {
    "identity": lambda x, xp: x,
    "logistic": lambda x, xp: 1 / (1 + xp.exp(-x)),
    "tanh": lambda x, xp: xp.tanh(x),
    "relu": lambda x, xp: xp.where(x > 0, x, 0 * x),
    "gelu": lambda x, xp: x / 2 * (1 + xp.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "silu": lambda x, xp: x / (1 + xp.exp(-x)),
    "elu": lambda x, xp: xp.where(x > 0, x, xp.expm1(x)),
    "leaky_relu": lambda x, xp: xp.where(x > 0, x, 0.01 * x),
    "softplus": lambda x, xp: xp.log1p(xp.exp(x)),
    "exp": lambda x, xp: xp.exp(x),
    "softmax": softmax,
}


def plain_losses(loss, z, targets, xp):
    """Return the loss of each sample, (batch,), with targets in columns."""
    return xp.sum(_terms(loss, z, targets, xp), axis=-1)


def _terms(loss, z, t, xp):
    if isinstance(loss, losses.SoftmaxCrossEntropy):
        smoothing = loss.label_smoothing
        t = t * (1 - smoothing) + smoothing / z.shape[1]
        return -t * xp.log(softmax(z, xp))
    if isinstance(loss, losses.SoftmaxFocal):
        p = softmax(z, xp)
        return -t * (1 - p) ** loss.gamma * xp.log(p)
    if isinstance(loss, losses.BinaryCrossEntropy | losses.BinaryFocal):
        p, gamma = PLAIN_ACTIVATIONS["logistic"](z, xp), getattr(loss, "gamma", 0.0)
        smoothing = getattr(loss, "label_smoothing", 0.0)
        t = t * (1 - smoothing) + smoothing / 2
        return -t * (1 - p) ** gamma * xp.log(p) - (1 - t) * p**gamma * xp.log(1 - p)
    if isinstance(loss, losses.Poisson):
        return xp.exp(z) - t * z - t + t * xp.log(xp.where(t > 0, t, 1 + t))
    if isinstance(loss, losses.Gaussian):
        mean, log_variance = z[:, : t.shape[1]], z[:, t.shape[1] :]
        return 0.5 * (math.log(2 * math.pi) + log_variance + (t - mean) ** 2 / xp.exp(log_variance))
    output = "identity"
    if isinstance(loss, losses.Custom):
        y = PLAIN_ACTIVATIONS[loss.output](z, xp)
        return (y - t) ** 4 if loss.function is fourth_power else -t * xp.log(y)
    if isinstance(loss, losses.Through):
        loss, output = loss.loss, loss.output
    activate = PLAIN_ACTIVATIONS[output]
    if isinstance(loss, losses.Quantile):
        # The first quantile, and positive steps from each to the next.
        found, terms = 0.0, []
        for i, level in enumerate(loss.levels):
            part = z[:, i * t.shape[1] : (i + 1) * t.shape[1]]
            found = PLAIN_ACTIVATIONS["softplus"](part, xp) + found if i else part
            error = t - activate(found, xp)
            terms.append(xp.where(error > 0, level * error, (level - 1) * error))
        return xp.concat(terms, axis=-1)
    error = activate(z, xp) - t
    size = xp.abs(error)
    if isinstance(loss, losses.SquaredError):
        return error**2 / 2
    if isinstance(loss, losses.AbsoluteError):
        return size
    assert isinstance(loss, losses.Huber)
    return xp.where(size <= loss.delta, error**2 / 2, loss.delta * (size - loss.delta / 2))
