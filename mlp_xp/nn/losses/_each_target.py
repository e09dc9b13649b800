"""The sum of the losses for several targets, which have separate outputs."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.losses._base import Loss, Terms
from mlp_xp.nn.losses._wrapped import Wrapped


@dataclass(frozen=True)
class EachTarget(Wrapped):
    r"""A classification loss for each of several targets: :math:`\ell = \sum_j \ell(z_j, t_j)`.

    The outputs are ordered by target.

    Parameters
    ----------
    loss : Loss
        The loss of one target, with softmax outputs.
    sizes : tuple of int
        The number of classes of each target.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import EachTarget, SoftmaxCrossEntropy
    >>> loss = EachTarget(SoftmaxCrossEntropy(), (2, 3))
    >>> losses, _ = loss(xp.zeros((1, 5)), xp.asarray([[1, 2]]), xp=xp)
    >>> losses.round(4)  # log(2) + log(3)
    array([1.7918])
    >>> loss.activate(xp.zeros((1, 5)), xp=xp).round(2)
    array([[0.5 , 0.5 , 0.33, 0.33, 0.33]])
    """

    loss: Loss
    sizes: tuple[int, ...]

    @property
    def output(self) -> str:  # type: ignore[override]
        """The name of the output activation of each target."""
        return self.loss.output

    def split(self, outputs: Any) -> list[Any]:
        """Split the outputs by target; each part is (..., batch, classes)."""
        stops = list(accumulate(self.sizes))
        pairs = zip([0, *stops], stops, strict=False)
        return [outputs[..., start:stop] for start, stop in pairs]

    def _targets(self, targets: Array, *, xp: Namespace) -> list[Array]:
        if xp.isdtype(targets.dtype, "real floating"):
            return self.split(targets)
        return [targets[..., j] for j in range(len(self.sizes))]

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the loss terms for each target, and concatenate them.

        Targets are labels, (..., batch, targets), or probabilities, (..., batch, outputs).
        """
        pairs = zip(self.split(logits), self._targets(targets, xp=xp), strict=True)
        found = [self.loss.terms(own, target, xp=xp) for own, target in pairs]

        def pullback(dloss: Array | float) -> Array:
            return xp.concat([pull(dloss) for _, pull in found], axis=-1)

        return xp.concat([terms for terms, _ in found], axis=-1), pullback

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the class probabilities of each target, (..., batch, outputs)."""
        return xp.concat([self.loss.activate(own, xp=xp) for own in self.split(logits)], axis=-1)

    def is_correct(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Return 1 for each sample whose targets are all predicted correctly, else 0."""
        pairs = zip(self.split(logits), self._targets(targets, xp=xp), strict=True)
        first, *others = (self.loss.is_correct(own, target, xp=xp) for own, target in pairs)
        for other in others:
            first = first * other
        return first
