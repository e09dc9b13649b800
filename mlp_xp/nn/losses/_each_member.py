"""A loss for several networks (members): the mean of the members' losses and predictions."""

from __future__ import annotations

from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.losses._base import Loss, Terms
from mlp_xp.nn.losses._wrapped import Wrapped


@dataclass(frozen=True)
class EachMember(Wrapped):
    r"""The mean of the losses of n networks, :math:`\ell = \frac1n \sum_m \ell(z_m, t)`.

    Predictions are the mean of the networks' activated outputs (probabilities, values or
    quantiles). A predicted standard deviation is the standard deviation of the mixture of the
    networks' distributions. Outputs are ordered by network.

    Parameters
    ----------
    loss : Loss
        The loss of one network.
    n_members : int

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import EachMember, SquaredError
    >>> loss = EachMember(SquaredError(), 2)
    >>> losses, pullback = loss(xp.asarray([[1.0, 3.0]]), xp.asarray([[0.0]]), xp=xp)
    >>> losses, pullback(xp.ones(1)), loss.activate(xp.asarray([[1.0, 3.0]]), xp=xp)
    (array([2.5]), array([[0.5, 1.5]]), array([[2.]]))
    """

    loss: Loss
    n_members: int

    @property
    def output(self) -> str:  # type: ignore[override]
        return self.loss.output

    @property
    def outputs_per_target(self) -> int:  # type: ignore[override]
        """The total number of outputs of all members per target."""
        return self.n_members * self.loss.outputs_per_target

    def members(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the raw outputs of each member, (members, ..., batch, outputs)."""
        width = logits.shape[-1] // self.n_members
        parts = xp.reshape(logits, (*logits.shape[:-1], self.n_members, width))
        n_axes = parts.ndim
        return xp.permute_dims(parts, (n_axes - 2, *range(n_axes - 2), n_axes - 1))

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the mean of the members' loss terms."""
        terms, pull = self.loss.terms(self.members(logits, xp=xp), targets, xp=xp)

        def pullback(dloss: Array | float) -> Array:
            dlogits = pull(dloss * (1.0 / self.n_members))
            n_axes = dlogits.ndim
            parts = xp.permute_dims(dlogits, (*range(1, n_axes - 1), 0, n_axes - 1))
            return xp.reshape(parts, logits.shape)

        return xp.sum(terms, axis=0) * (1.0 / self.n_members), pullback

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the mean of the members' predictions, (..., batch, outputs)."""
        outputs = self.loss.activate(self.members(logits, xp=xp), xp=xp)
        mean = self._mean(outputs, xp=xp)
        if not self.has_std:
            return mean
        points, stds = self.loss.point(outputs, xp=xp), self.loss.std(outputs, xp=xp)
        center = self._mean(points, xp=xp)
        variance = self._mean(stds * stds + (points - center) * (points - center), xp=xp)
        return xp.concat([center, xp.sqrt(variance)], axis=-1)

    def spread(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the standard deviation of the members' predictions, (..., batch, outputs)."""
        outputs = self.loss.point(self.loss.activate(self.members(logits, xp=xp), xp=xp), xp=xp)
        away = outputs - self._mean(outputs, xp=xp)
        return xp.sqrt(self._mean(away * away, xp=xp))

    def _mean(self, values: Array, *, xp: Namespace) -> Array:
        return xp.sum(values, axis=0) * (1.0 / self.n_members)

    def is_correct(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Return 1 where the mean of the members' predictions gives the correct class, else 0."""
        outputs = self.activate(logits, xp=xp)
        return self.loss.is_correct(self.raw_outputs(outputs, xp=xp), targets, xp=xp)

    def initial_biases(
        self, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> Array | None:
        """Return the initial biases of the members' output layers, (members, outputs), or None."""
        biases = self.loss.initial_biases(targets, weights, xp=xp)
        return None if biases is None else xp.stack([biases] * self.n_members)

    def reported(self, value: Any, n_outputs: int) -> Any:
        """Return an average loss in the form that the members' loss reports."""
        return self.loss.reported(value, n_outputs // self.n_members)
