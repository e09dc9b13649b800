"""The losses that the tests go through, and data that suit them."""

from __future__ import annotations

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
    """Return labels as probabilities."""
    return np.eye(outputs)[targets] if targets.ndim == 1 else targets


def evaluate(backend, loss, logits, targets, weights=None):
    """Return average and gradient, on the host."""
    with backend.scope():
        arrays = [None if a is None else backend.put(a) for a in (logits, targets, weights)]
        value, pullback = mean_loss(loss, *arrays, xp=backend.xp)
        return backend.get(value), backend.get(pullback())
