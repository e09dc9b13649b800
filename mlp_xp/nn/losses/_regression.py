"""Losses of real values: of the error, and of counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.losses._base import ErrorLoss, Loss, LossPullback, RealValued, shares

__all__ = ["REGRESSION_LOSSES", "AbsoluteError", "Huber", "Poisson", "Quantile", "SquaredError"]


@dataclass(frozen=True)
class SquaredError(ErrorLoss):
    r"""Half the squared error, summed over the outputs of a sample.

    :math:`\ell = \tfrac12 \sum_k (z_k - t_k)^2` and :math:`\partial \ell / \partial z = z - t`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import SquaredError
    >>> loss = SquaredError()
    >>> value, pullback = loss(xp.asarray([[3.0], [1.0]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> float(value)
    1.0
    >>> pullback()
    array([[1.],
           [0.]])
    """

    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Give half the square of each error, and the error."""
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
    >>> value, pullback = loss(xp.asarray([[3.0], [1.0]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> float(value)
    1.0
    >>> pullback()
    array([[0.5],
           [0. ]])
    """

    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Give each error's absolute value and sign."""
        return xp.abs(error), xp.sign(error)


@dataclass(frozen=True)
class Huber(ErrorLoss):
    r"""Half the squared error of small errors, and linear in large ones.

    With :math:`e = z - t` and :math:`c = \min(\max(e, -\delta), \delta)`,
    :math:`\ell = \sum_k c_k (e_k - c_k / 2)`: that is :math:`e^2 / 2` up to :math:`|e| = \delta`
    and :math:`\delta\,(|e| - \delta / 2)` from there, and :math:`\partial \ell / \partial z = c`.

    Parameters
    ----------
    delta : float > 0, default=1.0
        The error, in the unit of the targets, from which on it counts linearly.

    References
    ----------
    Huber, "Robust estimation of a location parameter" (1964), Ann. Math. Statist. 35(1).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import Huber
    >>> loss = Huber(delta=1.0)
    >>> value, pullback = loss(xp.asarray([[3.0], [0.5]]), xp.asarray([[0.0], [0.0]]), xp=xp)
    >>> float(value)  # the mean of 2.5 and 0.125
    1.3125
    >>> pullback()
    array([[0.5 ],
           [0.25]])
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < math.inf:
            raise ValueError(
                f"delta is {self.delta!r}, and must be above 0 and finite: the error from which on "
                "it counts linearly; SquaredError() is the loss without such a bound."
            )

    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Give the loss of each error, and the error held within the bounds."""
        held = xp.minimum(xp.maximum(error, -self.delta), self.delta)
        losses = held * -0.5
        losses += error
        losses *= held
        return losses, held


@dataclass(frozen=True)
class Quantile(ErrorLoss):
    r"""The pinball loss, summed over the outputs of a sample; it estimates a quantile.

    With :math:`e = z - t`, :math:`\ell = \sum_k \max((1 - q)\,e_k, -q\,e_k)`, computed as
    :math:`\tfrac12 |e| + (\tfrac12 - q)\,e`, and :math:`\partial \ell / \partial z =
    \tfrac12 \mathrm{sign}(e) + \tfrac12 - q`. With :math:`q = \tfrac12` it is half the absolute
    error.

    Parameters
    ----------
    quantile : float in (0, 1), default=0.5
        The share of the targets that is to lie below the output.

    References
    ----------
    Koenker, Bassett, "Regression quantiles" (1978), Econometrica 46(1).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import Quantile
    >>> loss = Quantile(quantile=0.75)
    >>> value, pullback = loss(xp.asarray([[4.0], [0.0]]), xp.asarray([[0.0], [4.0]]), xp=xp)
    >>> float(value)  # the mean of 1 and 3
    2.0
    >>> pullback()
    array([[ 0.125],
           [-0.375]])
    """

    quantile: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(
                f"quantile is {self.quantile!r}, and must be above 0 and below 1; 0.5 is the "
                "median, 0.9 a value that nine in ten targets lie below."
            )

    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Give the pinball loss of each error and its slope."""
        tilt = 0.5 - self.quantile
        losses = xp.abs(error)
        losses *= 0.5
        losses += error * tilt
        slope = xp.sign(error)
        slope *= 0.5
        slope += tilt
        return losses, slope


@dataclass(frozen=True)
class Poisson(RealValued):
    r"""Half the Poisson deviance of rates :math:`\mu = e^z`, summed over the outputs of a sample.

    :math:`\ell = \sum_k t_k \log(t_k / \mu_k) - t_k + \mu_k`, where :math:`0 \log 0 = 0`, and
    :math:`\partial \ell / \partial z = \mu - t`. No rate is divided by: the first term is
    :math:`t\,(\log t - z)`. An output whose exponential would overflow is held a little short of
    that, so that value and gradient are huge, but finite.

    References
    ----------
    McCullagh, Nelder, "Generalized Linear Models" (1989), section 6.2; scikit-learn's
    ``MLPRegressor(loss="poisson")``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import Poisson
    >>> loss = Poisson()
    >>> value, pullback = loss(xp.asarray([[0.0], [0.0]]), xp.asarray([[0.0], [1.0]]), xp=xp)
    >>> float(value)  # the mean of 1 and 0
    0.5
    >>> pullback()
    array([[0.5],
           [0. ]])
    """

    output = "exp"

    def __call__(
        self, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> tuple[Array, LossPullback]:
        """Give the average loss and its pullback.

        Parameters
        ----------
        logits : (batch, outputs)
        targets : (batch, outputs), at least 0, of the dtype of the logits
        weights : (batch,), of the dtype of the logits, optional
        xp : namespace

        Returns
        -------
        value : 0-d array
        pullback : callable
            Gives ``dlogits : (batch, outputs)``.
        """
        share = shares(weights, logits.shape[0], xp=xp)
        slope = self.activate(logits, xp=xp)
        slope -= targets
        losses = xp.log(xp.where(targets > 0.0, targets, 1.0))
        losses -= logits
        losses *= targets
        losses += slope
        losses *= share
        return xp.sum(losses), lambda: slope * share

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Give the rates, (batch, outputs)."""
        # So far short of an overflow that even the sum over the outputs of a sample is none.
        limit = math.log(float(xp.finfo(logits.dtype).max) / logits.shape[1]) - 1.0
        return xp.exp(xp.minimum(logits, limit))


REGRESSION_LOSSES: dict[str, type[Loss]] = {
    "squared_error": SquaredError,
    "absolute_error": AbsoluteError,
    "huber": Huber,
    "quantile": Quantile,
    "poisson": Poisson,
}
