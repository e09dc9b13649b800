"""Likelihood losses for counts, and for normal distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.losses._base import Loss, Terms, mean_and_std, normal_scores


@dataclass(frozen=True)
class Poisson(Loss):
    r"""Half the Poisson deviance of rates :math:`\mu = e^z`, summed over the outputs of a sample.

    :math:`\ell = \sum_k t_k \log(t_k / \mu_k) - t_k + \mu_k`, where :math:`0 \log 0 = 0`, and
    :math:`\partial \ell / \partial z = \mu - t`. The first term is computed as :math:`t\,(\log t -
    z)`, without dividing by a rate. Outputs are clipped so that their exponentials cannot overflow.
    The loss and its gradient are therefore always finite.

    References
    ----------
    McCullagh, Nelder, "Generalized Linear Models" (1989), section 6.2; scikit-learn's
    ``MLPRegressor(loss="poisson")``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import Poisson
    >>> loss = Poisson()
    >>> losses, pullback = loss(xp.asarray([[0.0], [0.0]]), xp.asarray([[0.0], [1.0]]), xp=xp)
    >>> losses
    array([1., 0.])
    >>> pullback(xp.ones(2))
    array([[1.],
           [0.]])
    """

    output = "exp"

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute half the deviance of each output."""
        slope = self.activate(logits, xp=xp)
        slope -= targets
        terms = xp.log(xp.where(targets > 0.0, targets, 1.0)) - logits
        terms *= targets
        terms += slope
        return terms, lambda dloss: slope * dloss

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the rates, (..., batch, outputs)."""
        return xp.exp(xp.minimum(logits, self.largest_logit(logits, xp=xp)))

    def largest_logit(self, logits: Array, *, xp: Namespace) -> float:
        """Return the value to which larger outputs are clipped, to prevent overflow.

        The value is low enough that the sum of a sample's rates is finite.
        """
        return math.log(float(xp.finfo(logits.dtype).max) / logits.shape[-1]) - 1.0

    def check_targets(self, targets: Array, name: str = "y", *, xp: Namespace) -> None:
        """Raise ValueError if a target is negative."""
        if xp.any(targets < 0):
            raise ValueError(
                f"{name} must be at least 0 for the Poisson loss, got {xp.min(targets)}."
            )


@dataclass(frozen=True)
class Gaussian(Loss):
    r"""Negative log-density of a normal distribution for each target, summed over the targets.

    Each target has two outputs, the mean :math:`\mu` and the logarithm of the variance, :math:`s`:
    :math:`\ell = \tfrac12 \sum_k s_k + (t_k - \mu_k)^2 e^{-s_k} + \log 2\pi`, with :math:`\partial
    \ell / \partial \mu = (\mu - t)\,e^{-s}` and :math:`\partial \ell / \partial s = \tfrac12 (1 -
    (t - \mu)^2 e^{-s})`. The computation never divides by a variance. The logarithm :math:`s` is
    clipped so that neither the variance nor a squared error divided by the variance overflows. The
    loss and its gradient are therefore always finite.

    The activated outputs are means and standard deviations, :math:`e^{s / 2}`. The network
    initially predicts the mean and variance of the targets.

    References
    ----------
    Nix, Weigend, "Estimating the mean and variance of the target probability distribution" (1994),
    IEEE International Conference on Neural Networks.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import Gaussian
    >>> loss = Gaussian()
    >>> losses, pullback = loss(xp.asarray([[3.0, 0.0]]), xp.asarray([[1.0]]), xp=xp)
    >>> losses.round(3)  # 2**2 / 2 + log(2 pi) / 2
    array([2.919])
    >>> pullback(xp.ones(1))
    array([[ 2. , -1.5]])
    """

    output = "gaussian"
    outputs_per_target = 2
    has_std = True

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the loss of each target."""
        means, log_variances = self._parts(logits)
        log_variances = self._held(log_variances, xp=xp)
        error = means - targets
        slope = error * xp.exp(-log_variances)
        error *= slope
        terms = log_variances + error
        terms += math.log(2.0 * math.pi)
        terms *= 0.5

        def pullback(dloss: Array | float) -> Array:
            return xp.concat([slope * dloss, (0.5 - 0.5 * error) * dloss], axis=-1)

        return terms, pullback

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return means, then standard deviations, (..., batch, 2 * targets)."""
        means, log_variances = self._parts(logits)
        stds = xp.exp(0.5 * self._held(log_variances, xp=xp))
        return xp.concat([means, stds], axis=-1)

    def largest_log_variance(self, logits: Array, *, xp: Namespace) -> float:
        """Return the magnitude to which the logarithms of variances are clipped."""
        return 0.5 * math.log(float(xp.finfo(logits.dtype).max))

    def initial_biases(
        self, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> Array | None:
        """Return the mean of the targets, and the logarithm of their variance, as biases."""
        mean, std = mean_and_std(targets, weights, xp=xp)
        return xp.concat([mean, 2.0 * xp.log(std)])

    def units(self, mean: Array, deviation: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Return the factor and the offset; for standard deviations, the offset is 0."""
        return xp.concat([deviation, deviation]), xp.concat([mean, xp.zeros_like(mean)])

    def point(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the mean of each target, (..., batch, targets)."""
        return self._parts(outputs)[0]

    def centers(self, outputs: Array, *, xp: Namespace) -> tuple[Array, Array | float]:
        """Return means, and standard deviations, (..., batch, targets, 1)."""
        means, stds = self._parts(outputs)
        return means[..., None], stds[..., None]

    def std(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the standard deviation of each target, (..., batch, targets)."""
        return self._parts(outputs)[1]

    def quantiles(self, outputs: Array, levels: Sequence[float], *, xp: Namespace) -> Array:
        r"""Return quantiles of each target, (..., batch, targets, levels), for any levels.

        A quantile is :math:`\mu + \sigma\,\Phi^{-1}(q)`.
        """
        if not all(0.0 < level < 1.0 for level in levels):
            raise ValueError(f"`quantiles` must be above 0 and below 1, got {tuple(levels)}.")
        means, stds = self._parts(outputs)
        return xp.stack([means + score * stds for score in normal_scores(levels)], axis=-1)

    def raw_outputs(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return means and logarithms of variances, from means and standard deviations."""
        means, stds = self._parts(outputs)
        return xp.concat([means, 2.0 * xp.log(stds)], axis=-1)

    def reported(self, value: Any, n_outputs: int) -> Any:
        """Return an average loss divided by the number of targets."""
        return value / (n_outputs // 2)

    def _held(self, log_variances: Array, *, xp: Namespace) -> Array:
        largest = self.largest_log_variance(log_variances, xp=xp)
        return xp.minimum(xp.maximum(log_variances, -largest), largest)


def of_mixture(
    means: Sequence[Array],
    stds: Sequence[Any],
    weights: Sequence[float] | None = None,
    *,
    xp: Namespace,
) -> tuple[Array, Array]:
    r"""Return the mean and standard deviation of a mixture of distributions.

    By the law of total variance, :math:`\sigma^2 = \sum_i w_i (\sigma_i^2 + (\mu_i - \mu)^2)`,
    the mean of the variances plus the variance of the means. By default, all n weights
    :math:`w_i` are 1/n.

    References
    ----------
    Lakshminarayanan, Pritzel, Blundell, "Simple and scalable predictive uncertainty estimation
    using deep ensembles" (2017), arXiv:1612.01474, section 2.4.
    """
    mean = _mean(weigh(means, weights))
    squares = [std * std + (m - mean) * (m - mean) for m, std in zip(means, stds, strict=True)]
    return mean, xp.sqrt(_mean(weigh(squares, weights)))


def weigh(arrays: Sequence[Array], weights: Sequence[float] | None) -> Sequence[Array]:
    """Return arrays whose mean is the weighted mean of the given arrays; None means no weights."""
    if weights is None:
        return arrays
    return [array * float(w * len(arrays)) for array, w in zip(arrays, weights, strict=True)]


def _mean(arrays: Sequence[Array]) -> Array:
    return sum(arrays[1:], arrays[0]) / len(arrays)
