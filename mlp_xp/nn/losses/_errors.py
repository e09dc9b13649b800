"""Losses that depend on the error, i.e. the difference between output and target."""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from itertools import pairwise
from numbers import Real
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.layers import identity, softplus
from mlp_xp.nn.losses._base import Loss, Terms, invert, mean_and_std, normal_scores


class ErrorLoss(Loss):
    r"""A loss that depends only on the error, summed over the outputs of a sample.

    :math:`\ell = \sum_k f(z_k - t_k)` and :math:`\partial \ell / \partial z = f'(z - t)`. The loss
    has no output activation; `Through` adds one. A subclass implements :math:`f` and :math:`f'`.
    """

    output = "identity"
    is_mean_of_outputs = True

    @abstractmethod
    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Return the loss of each error, and the derivative, both in the error's shape."""

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the loss of each output."""
        values, pull_values = self.values(logits, xp=xp)
        terms, pullback = self.of_values(values, targets, xp=xp)
        return terms, lambda dloss: pull_values(pullback(dloss))

    def of_values(self, values: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the loss terms of predicted values, and their pullback, as in `terms`."""
        terms, slope = self.of_error(values - targets, xp=xp)
        return terms, lambda dloss: slope * dloss

    def values(self, logits: Array, *, xp: Namespace) -> tuple[Array, Callable[[Array], Array]]:
        """Return the predicted values for raw outputs, and their pullback."""
        return identity(logits, xp=xp)

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the predicted values, (..., batch, outputs)."""
        return self.values(logits, xp=xp)[0]


@dataclass(frozen=True)
class SquaredError(ErrorLoss):
    r"""Half the squared error, summed over the outputs of a sample.

    :math:`\ell = \tfrac12 \sum_k (z_k - t_k)^2` and :math:`\partial \ell / \partial z = z - t`.

    References
    ----------
    Bishop, "Pattern Recognition and Machine Learning" (2006), section 5.2.

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
    r"""The absolute error, summed over the outputs of a sample, for estimates of the median.

    :math:`\ell = \sum_k |z_k - t_k|` and
    :math:`\partial \ell / \partial z = \mathrm{sign}(z - t)`, defined as 0 where :math:`z = t`.

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
    r"""The Huber loss: half the squared error for small errors, linear for large ones.

    With :math:`e = z - t` and :math:`c = \min(\max(e, -\delta), \delta)`,
    :math:`\ell = \sum_k c_k (e_k - c_k / 2)`. An output's loss is :math:`e^2 / 2` if
    :math:`|e| \le \delta` and :math:`\delta\,(|e| - \delta / 2)` otherwise, and
    :math:`\partial \ell / \partial z = c`.

    Parameters
    ----------
    delta : float > 0, default=1.0
        The magnitude of the error, in the unit of the targets, above which the loss is linear.

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
                f"`delta` must be above 0 and finite, got {self.delta!r}: the loss is linear for "
                "larger errors. To square errors of any size, use SquaredError()."
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
    r"""The pinball loss, summed over the outputs of a sample, for estimates of quantiles.

    With :math:`e = y - t`, :math:`\ell = \sum_k \max((1 - q)\,e_k, -q\,e_k)`, computed as
    :math:`\tfrac12 |e| + (\tfrac12 - q)\,e`, and :math:`\partial \ell / \partial y = \tfrac12
    \mathrm{sign}(e) + \tfrac12 - q`. For :math:`q = \tfrac{1}{2}`, the loss is half the absolute
    error.

    A single quantile is the network's output, :math:`y = z`. Several quantiles have one output
    each, and their losses are added. The lowest quantile is :math:`y_1 = z_1`. Each higher quantile
    adds a positive step, :math:`y_k = y_{k-1} + \log(1 + e^{z_k})`, so quantiles cannot cross.
    Since a quantile depends on all lower outputs, :math:`\bar z_k = (\bar y_k + \bar y_{k+1} +
    \dots) / (1 + e^{-z_k})`, and the first output has no denominator.

    Parameters
    ----------
    quantile : float in (0, 1), or an increasing sequence of them, default=0.5
        The fraction of targets that the output should exceed. ``(0.05, 0.5, 0.95)`` predicts the
        median and an interval that contains nine in ten targets.

    References
    ----------
    Koenker, Bassett, "Regression quantiles" (1978), Econometrica 46(1); for positive steps Park,
    Maddix, Aubet, Kan, Gasthaus, Wang, "Learning quantile functions without quantile crossing for
    distribution-free time series forecasting" (2022), arXiv:2111.06581.

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

    Three quantiles of one target:

    >>> Quantile((0.05, 0.5, 0.95)).activate(xp.asarray([[-1.0, 0.0, 3.0]]), xp=xp).round(2)
    array([[-1.  , -0.31,  2.74]])
    """

    quantile: float | tuple[float, ...] = field(default=0.5, metadata={"is_list": True})

    def __post_init__(self) -> None:
        given: Any = self.quantile
        is_list = isinstance(given, Iterable) and getattr(given, "ndim", 1) > 0
        given = tuple(map(as_level, given)) if is_list else as_level(given)
        object.__setattr__(self, "quantile", given)
        levels = self.levels
        if not (
            levels
            and all(isinstance(level, Real) and 0.0 < level < 1.0 for level in levels)
            and all(low < high for low, high in pairwise(levels))
        ):
            raise ValueError(
                "`quantile` must be above 0 and below 1, or several such numbers in increasing "
                f"order, got {self.quantile!r}; 0.5 is the median, 0.9 a value above nine in ten "
                "targets, (0.05, 0.5, 0.95) the median with a 90 % interval."
            )

    @property
    def levels(self) -> tuple[float, ...]:  # type: ignore[override]
        """The quantiles as a tuple."""
        return self.quantile if isinstance(self.quantile, tuple) else (self.quantile,)

    @property
    def outputs_per_target(self) -> int:  # type: ignore[override]
        """One output per quantile."""
        return len(self.levels)

    @property
    def output(self) -> str:  # type: ignore[override]
        return "identity" if len(self.levels) == 1 else "quantiles"

    def values(self, logits: Array, *, xp: Namespace) -> tuple[Array, Callable[[Array], Array]]:
        """Return the predicted quantiles for raw outputs, with their pullback."""
        if len(self.levels) == 1:
            return super().values(logits, xp=xp)
        first, *_ = self._parts(logits)
        n_targets = first.shape[-1]
        steps, pull_steps = softplus(logits[..., n_targets:], xp=xp)
        quantiles = [first]
        for step in self._parts(steps, len(self.levels) - 1):
            quantiles.append(quantiles[-1] + step)

        def pullback(dvalues: Array) -> Array:
            *lower, dlast = self._parts(dvalues)
            dparts = [dlast]
            for dvalue in reversed(lower):
                dparts.append(dparts[-1] + dvalue)
            dfirst = dparts.pop()
            return xp.concat([dfirst, pull_steps(xp.concat(dparts[::-1], axis=-1))], axis=-1)

        return xp.concat(quantiles, axis=-1), pullback

    def of_values(self, values: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the loss of each quantile, with its pullback."""
        pairs = [
            _pinball(part - targets, level, xp=xp)
            for part, level in zip(self._parts(values), self.levels, strict=True)
        ]
        terms, slope = pairs[0]
        if len(pairs) > 1:
            terms, slope = (xp.concat(parts, axis=-1) for parts in zip(*pairs, strict=True))
        return terms, lambda dloss: slope * dloss

    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Return the pinball loss of each error for the first quantile, and its derivative."""
        return _pinball(error, self.levels[0], xp=xp)

    def initial_biases(
        self, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> Array | None:
        """Return biases that give the quantiles of a normal distribution fitted to the targets.

        Initially, intervals then have widths in the targets' order of magnitude.
        """
        if len(self.levels) == 1:
            return None
        mean, std = mean_and_std(targets, weights, xp=xp)
        quantiles = [mean + score * std for score in normal_scores(self.levels)]
        return self.raw_outputs(xp.concat(quantiles), xp=xp)

    def point(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the median of each target, (..., batch, targets).

        If the median is not among the quantiles, interpolate between the nearest lower and higher
        quantiles. If all quantiles are on one side of the median, return the nearest quantile.
        """
        levels, parts = self.levels, self._parts(outputs)
        above = bisect_right(levels, 0.5)
        if above == 0 or above == len(levels) or levels[above - 1] == 0.5:
            return parts[max(above - 1, 0)]
        fraction = (0.5 - levels[above - 1]) / (levels[above] - levels[above - 1])
        return (1.0 - fraction) * parts[above - 1] + fraction * parts[above]

    def quantiles(self, outputs: Array, levels: Sequence[float], *, xp: Namespace) -> Array:
        """Compute quantiles of each target, (..., batch, targets, levels), from the outputs."""
        parts = self._parts(outputs)
        chosen = []
        for level in levels:
            known = [
                part for q, part in zip(self.levels, parts, strict=True) if math.isclose(q, level)
            ]
            if not known:
                raise ValueError(
                    f"`quantiles` must be among {self.levels}, for which the network was fitted, "
                    f"got {level}; or fit with loss=Quantile({tuple(levels)})."
                )
            chosen += known
        return xp.stack(chosen, axis=-1)

    def centers(self, outputs: Array, *, xp: Namespace) -> tuple[Array, Array | float]:
        """Return each quantile of each target, (..., batch, targets, quantiles)."""
        return xp.stack(self._parts(outputs), axis=-1), 1.0

    def raw_outputs(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the raw outputs that predict these quantiles."""
        if len(self.levels) == 1:
            return outputs
        first, *others = self._parts(outputs)
        pairs = pairwise((first, *others))
        steps = [invert("softplus", high - low, xp=xp) for low, high in pairs]
        return xp.concat([first, *steps], axis=-1)


def as_level(level: Any) -> Any:
    """Return a number as a float; convert 0.05 in float32 to 0.05, not to 0.05000000075."""
    if not isinstance(level, Real) and not hasattr(level, "ndim"):
        return level
    is_single = str(getattr(level, "dtype", "")).endswith("float32")
    return float(f"{float(level):.7g}" if is_single else level)


def _pinball(error: Array, level: float, *, xp: Namespace) -> tuple[Array, Array]:
    """Return the loss of each error, and its derivative."""
    tilt = 0.5 - level
    losses = xp.abs(error)
    losses *= 0.5
    losses += error * tilt
    slope = xp.sign(error)
    slope *= 0.5
    slope += tilt
    return losses, slope
