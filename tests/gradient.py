"""Comparison of a gradient with a finite difference."""

import numpy as np

from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.backends import Backend


def directional(function, point, direction) -> float:
    """Return the derivative along a direction, by Richardson's extrapolation of two differences.

    The error of a central difference is c h^2 + O(h^4); two step sizes cancel the first term.
    """

    def difference(h: float) -> float:
        pairs = list(zip(leaves(point), leaves(direction), strict=True))
        ends = [rebuild(point, (p + s * h * d for p, d in pairs)) for s in (1, -1)]
        return (function(ends[0]) - function(ends[1])) / (2 * h)

    h = 2e-3
    return (4 * difference(h / 2) - difference(h)) / 3


def check_gradient(backend: Backend, function, point, rng) -> None:
    """Check the gradient returned by ``function(tree) -> (value, gradient tree)``."""

    def value_and_gradient(tree):
        return map_leaves(backend.get, function(map_leaves(backend.put, tree)))

    with backend.scope():
        direction = map_leaves(lambda leaf: rng.standard_normal(leaf.shape), point)
        _, grads = value_and_gradient(point)
        products = [g * d for g, d in zip(leaves(grads), leaves(direction), strict=True)]
        exact = sum(float(np.sum(product)) for product in products)
        scale = sum(float(np.sum(np.abs(product))) for product in products)
        numeric = directional(lambda tree: float(value_and_gradient(tree)[0]), point, direction)
    # The difference has a rounding error of eps / h and a truncation error of h^4.
    assert abs(exact - numeric) <= 1e-9 * (1 + scale), (exact, numeric)


def fourth_power(outputs, targets, *, xp):
    error = outputs - targets
    return xp.sum(error**4, axis=-1), lambda dlosses: 4.0 * error**3 * dlosses[..., None]


def cross_entropy_of(p, targets, *, xp):
    """Return the cross-entropy of positive probabilities and one-hot targets."""
    losses = -xp.sum(targets * xp.log(p), axis=-1)
    return losses, lambda dlosses: -targets / p * dlosses[..., None]
