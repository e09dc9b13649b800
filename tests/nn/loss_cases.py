"""The losses that the tests go through, data that suit them, and plain formulas.

The formulas are for NumPy, and for torch, which differentiates them.
"""

import math

import array_api_compat.numpy as np_xp
import numpy as np
from gradient import cross_entropy_of, fourth_power

from mlp_xp.nn import losses
from mlp_xp.nn.losses import mean_loss

LOSSES = {
    "softmax": losses.SoftmaxCrossEntropy(),
    "softmax_smoothed": losses.SoftmaxCrossEntropy(label_smoothing=0.2),
    "softmax_focal": losses.SoftmaxFocal(),
    "softmax_focal_0.5": losses.SoftmaxFocal(gamma=0.5),
    "softmax_focal_0": losses.SoftmaxFocal(gamma=0.0),
    "binary": losses.BinaryCrossEntropy(),
    "binary_smoothed": losses.BinaryCrossEntropy(label_smoothing=0.2),
    "binary_focal": losses.BinaryFocal(),
    "binary_focal_0.5": losses.BinaryFocal(gamma=0.5),
    "squared": losses.SquaredError(),
    "absolute": losses.AbsoluteError(),
    "huber": losses.Huber(delta=0.5),
    "quantile": losses.Quantile(quantile=0.8),
    "quantiles": losses.Quantile(quantile=(0.1, 0.5, 0.8)),
    "poisson": losses.Poisson(),
    "gaussian": losses.Gaussian(),
    "squared_identity": losses.Through(losses.SquaredError(), "identity"),
    "squared_logistic": losses.Through(losses.SquaredError(), "logistic"),
    "huber_tanh": losses.Through(losses.Huber(delta=0.5), "tanh"),
    "absolute_exp": losses.Through(losses.AbsoluteError(), "exp"),
    "quantile_softplus": losses.Through(losses.Quantile(quantile=0.8), "softplus"),
    "quantiles_softplus": losses.Through(losses.Quantile(quantile=(0.2, 0.7)), "softplus"),
    "squared_relu": losses.Through(losses.SquaredError(), "relu"),
    "custom": losses.Custom(fourth_power),
    "custom_tanh": losses.Custom(fourth_power, "tanh"),
    "custom_softmax": losses.Custom(cross_entropy_of, "softmax"),
}
# Labels or counts are other targets than probabilities or means.
WITH_LABELS = [name for name in LOSSES if name.startswith(("softmax", "binary", "poisson"))]
KINDS = {name: (False, True) if name in WITH_LABELS else (False,) for name in LOSSES}
# Steep far out, or with a kink at 0.
STEEP = ("absolute_exp", "gaussian", "custom", "squared_relu")


def away_from_0(values: np.ndarray) -> np.ndarray:
    """Keep clear of relu's kink, where no difference quotient is right."""
    return values + np.sign(values) * 0.1


def case(name, dtype="float64", n=5, outputs=3, *, is_hard=False):
    """Return logits, targets that suit the loss and keep away from its kinks, and weights."""
    rng, loss = np.random.default_rng(4), LOSSES[name]
    logits = 3 * rng.standard_normal((n, outputs * loss.outputs_per_target))
    logits = away_from_0(logits / 3) if name in STEEP else logits
    if name.startswith("softmax") and is_hard:
        targets = rng.integers(0, outputs, n).astype(np.int32)
    elif name.startswith(("softmax", "custom_softmax")):
        targets = rng.dirichlet(np.ones(outputs), n)
    elif name.startswith("binary"):
        targets = rng.random((n, outputs))
        targets = np.round(targets) if is_hard else targets
    elif name == "poisson":
        targets = rng.poisson(1.5, (n, outputs)) + (0.0 if is_hard else 0.3)
    else:
        errors = rng.choice([0.2, 0.3, 0.4, 0.6, 1.0, 3.0], (n, outputs))
        errors *= rng.choice([-1, 1], (n, outputs))
        targets = loss.point(loss.activate(logits, xp=np_xp), xp=np_xp) - errors
    weights = np.asarray([1, 3, 0, 2, 1], dtype=dtype)[:n]
    targets = targets if targets.dtype == np.int32 else targets.astype(dtype)
    return logits.astype(dtype), targets, weights


def in_columns(targets, outputs=3):
    return np.eye(outputs)[targets] if targets.ndim == 1 else targets


def evaluate(backend, loss, logits, targets, weights=None):
    with backend.scope():
        arrays = [None if a is None else backend.put(a) for a in (logits, targets, weights)]
        value, pullback = mean_loss(loss, *arrays, xp=backend.xp)
        return backend.get(value), backend.get(pullback())


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
    "selu": lambda x, xp: 1.0507009873554805 * xp.where(x > 0, x, 1.6732632423543772 * xp.expm1(x)),
    "mish": lambda x, xp: x * xp.tanh(xp.log1p(xp.exp(x))),
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
