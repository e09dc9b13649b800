"""Losses of the error, the difference between output and target."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.losses._base import Loss

__all__ = ["AbsoluteError", "ErrorLoss", "Huber", "Quantile", "SquaredError"]


class ErrorLoss(Loss):
    r"""A loss of the error alone, summed over the outputs of a sample.

    :math:`\ell = \sum_k f(z_k - t_k)` and :math:`\partial \ell / \partial z = f'(z - t)`. The
    outputs are the values themselves, so an output activation may come first (`Through`). A
    subclass implements :math:`f` and :math:`f'`.
    """

    output = "identity"
    is_mean_of_outputs = True

    @abstractmethod
    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Return the loss of each error and its derivative, both of the error's shape."""

    def terms(
        self, logits: Array, targets: Array, *, xp: Namespace
    ) -> tuple[Array, Callable[[Array | float], Array]]:
        """Compute the loss of each output.

        Parameters
        ----------
        logits, targets : (..., batch, outputs), of one dtype
        xp : namespace

        Returns
        -------
        terms : (..., batch, outputs)
        pullback : callable
        """
        terms, slope = self.of_error(logits - targets, xp=xp)
        return terms, lambda dloss: slope * dloss

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the outputs as they are."""
        return logits


@dataclass(frozen=True)
class SquaredError(ErrorLoss):
    r"""Half the squared error, summed over the outputs of a sample.

    :math:`\ell = \tfrac12 \sum_k (z_k - t_k)^2` and :math:`\partial \ell / \partial z = z - t`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import SquaredError
    >>> loss = SquaredError()
    >>> losses, pullback = loss(xp.asarray([[3.0], [1.0]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> losses
    array([2., 0.])
    >>> pullback(xp.ones(2))
    array([[2.],
           [0.]])
    """

    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Return half the square of each error, and the error."""
        losses = error * error
        losses *= 0.5
        return losses, error


@dataclass(frozen=True)
class AbsoluteError(ErrorLoss):
    r"""The absolute error, summed over the outputs of a sample; it estimates the median.

    :math:`\ell = \sum_k |z_k - t_k|` and
    :math:`\partial \ell / \partial z = \mathrm{sign}(z - t)`, taken as 0 where :math:`z = t`.

    References
    ----------
    Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning" (2009), section 10.6.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import AbsoluteError
    >>> loss = AbsoluteError()
    >>> losses, pullback = loss(xp.asarray([[3.0], [1.0]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> losses
    array([2., 0.])
    >>> pullback(xp.ones(2))
    array([[1.],
           [0.]])
    """

    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Return each error's absolute value and sign."""
        return xp.abs(error), xp.sign(error)


@dataclass(frozen=True)
class Huber(ErrorLoss):
    r"""Half the squared error where the error is small, linear where it is large.

    With :math:`e = z - t` and :math:`c = \min(\max(e, -\delta), \delta)`,
    :math:`\ell = \sum_k c_k (e_k - c_k / 2)`: that is :math:`e^2 / 2` up to :math:`|e| = \delta`
    and :math:`\delta\,(|e| - \delta / 2)` from there, and :math:`\partial \ell / \partial z = c`.

    Parameters
    ----------
    delta : float > 0, default=1.0
        The error, in the unit of the targets, from which on the loss is linear.

    References
    ----------
    Huber, "Robust estimation of a location parameter" (1964), Ann. Math. Statist. 35(1).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import Huber
    >>> loss = Huber(delta=1.0)
    >>> losses, pullback = loss(xp.asarray([[3.0], [0.5]]), xp.asarray([[0.0], [0.0]]), xp=xp)
    >>> losses
    array([2.5  , 0.125])
    >>> pullback(xp.ones(2))
    array([[1. ],
           [0.5]])
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < math.inf:
            raise ValueError(
                f"delta is {self.delta!r}, and must be above 0 and finite: the error from which on "
                "it counts linearly; SquaredError() is the loss without such a bound."
            )

    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Return the loss of each error, and the error clipped to the bounds."""
        clipped = xp.minimum(xp.maximum(error, -self.delta), self.delta)
        losses = clipped * -0.5
        losses += error
        losses *= clipped
        return losses, clipped


@dataclass(frozen=True)
class Quantile(ErrorLoss):
    r"""The pinball loss, summed over the outputs of a sample; it estimates a quantile.

    With :math:`e = z - t`, :math:`\ell = \sum_k \max((1 - q)\,e_k, -q\,e_k)`, computed as
    :math:`\tfrac12 |e| + (\tfrac12 - q)\,e`, and :math:`\partial \ell / \partial z =
    \tfrac12 \mathrm{sign}(e) + \tfrac12 - q`. With :math:`q = \tfrac{1}{2}` it is half the absolute
    error.

    Parameters
    ----------
    quantile : float in (0, 1), default=0.5
        The share of the targets that the output should exceed.

    References
    ----------
    Koenker, Bassett, "Regression quantiles" (1978), Econometrica 46(1).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import Quantile
    >>> loss = Quantile(quantile=0.75)
    >>> losses, pullback = loss(xp.asarray([[4.0], [0.0]]), xp.asarray([[0.0], [4.0]]), xp=xp)
    >>> losses
    array([1., 3.])
    >>> pullback(xp.ones(2))
    array([[ 0.25],
           [-0.75]])
    """

    quantile: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(
                f"quantile is {self.quantile!r}, and must be above 0 and below 1; 0.5 is the "
                "median, 0.9 a value that nine in ten targets lie below."
            )

    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Return the pinball loss of each error and its slope."""
        tilt = 0.5 - self.quantile
        losses = xp.abs(error)
        losses *= 0.5
        losses += error * tilt
        slope = xp.sign(error)
        slope *= 0.5
        slope += tilt
        return losses, slope
