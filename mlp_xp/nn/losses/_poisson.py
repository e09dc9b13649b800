"""Loss of counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.losses._base import Loss

__all__ = ["Poisson"]


@dataclass(frozen=True)
class Poisson(Loss):
    r"""Half the Poisson deviance of rates :math:`\mu = e^z`, summed over the outputs of a sample.

    :math:`\ell = \sum_k t_k \log(t_k / \mu_k) - t_k + \mu_k`, where :math:`0 \log 0 = 0`, and
    :math:`\partial \ell / \partial z = \mu - t`. No rate is divided by: the first term is
    :math:`t\,(\log t - z)`. An output whose exponential would overflow is clipped just below that:
    value and gradient are huge, but finite.

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

    def terms(
        self, logits: Array, targets: Array, *, xp: Namespace
    ) -> tuple[Array, Callable[[Array | float], Array]]:
        """Compute half the deviance of each output.

        Parameters
        ----------
        logits : (..., batch, outputs)
        targets : (..., batch, outputs), at least 0, of the dtype of the logits
        xp : namespace

        Returns
        -------
        terms : (..., batch, outputs)
        pullback : callable
        """
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
        """Return the output above which others are clipped, short of an overflow.

        Even the sum of the rates over the outputs of a sample is finite.
        """
        return math.log(float(xp.finfo(logits.dtype).max) / logits.shape[-1]) - 1.0

    def check_targets(self, targets: Array, name: str = "y", *, xp: Namespace) -> None:
        """Raise ValueError if a target is negative."""
        if xp.any(targets < 0):
            raise ValueError(
                f"{name} has values below 0, e.g. {xp.min(targets)}, which the Poisson loss does "
                "not take."
            )
