"""The contract of a loss, and the one place where losses are weighted and averaged."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from mlp_xp._utils.array_types import Array, DType, Namespace
from mlp_xp.nn.layers import shares

__all__ = ["Loss", "LossPullback", "average", "log_bounds", "mean_accuracy", "mean_loss"]

LossPullback = Callable[[Any], Array]


class Loss(ABC):
    """A loss of each sample, with its gradient; a frozen object whose fields are its settings.

    A subclass implements `terms` and `activate`, and overrides what differs from real values.
    Weights and averages are not its concern: `mean_loss` has them. All arrays may have leading
    axes, ``...``, e.g. for a stack of models.

    Attributes
    ----------
    output : str
        Name of the output activation.
    is_mean_of_outputs : bool
        Whether estimators report the mean over the outputs, as scikit-learn does, where the loss
        is their sum.
    is_own : bool
        Whether a user wrote the gradient, which is then compared with a finite difference.
    """

    output: str
    is_mean_of_outputs: ClassVar[bool] = False
    is_own: ClassVar[bool] = False

    @abstractmethod
    def terms(
        self, logits: Array, targets: Array, *, xp: Namespace
    ) -> tuple[Array, Callable[[Array | float], Array]]:
        """Compute what adds up to the loss of each sample.

        Parameters
        ----------
        logits : (..., batch, outputs)
            Raw outputs of the network; not written to.
        targets : (..., batch) integer labels, or (..., batch, outputs) of the dtype of the logits
            Not written to.
        xp : namespace

        Returns
        -------
        terms : (..., batch, n)
            A sample's loss is the sum over the last axis, of any length.
        pullback : callable
            ``pullback(dloss)`` returns ``dlogits : (..., batch, outputs)``; ``dloss`` is the
            derivative by each sample's loss, (..., batch, 1), or one number for all.
        """

    @abstractmethod
    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the prediction, (..., batch, outputs): probabilities, or values."""

    def __call__(
        self, logits: Array, targets: Array, *, xp: Namespace
    ) -> tuple[Array, LossPullback]:
        """Compute the loss of each sample.

        Parameters
        ----------
        logits : (..., batch, outputs)
        targets : array
            As `terms` takes them.
        xp : namespace

        Returns
        -------
        losses : (..., batch)
        pullback : callable
            ``pullback(dlosses)``, with ``dlosses : (..., batch)``, returns
            ``dlogits : (..., batch, outputs)``.
        """
        terms, pullback = self.terms(logits, targets, xp=xp)
        return xp.sum(terms, axis=-1), lambda dlosses: pullback(dlosses[..., None])

    def is_correct(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Return for each sample, as 0 or 1, whether its predicted class is right; (..., batch)."""
        raise TypeError(
            f"{type(self).__name__} has no accuracy; use SoftmaxCrossEntropy for classes."
        )

    def check_targets(  # noqa: B027 - any real values will do.
        self, targets: Array, name: str = "y", *, xp: Namespace
    ) -> None:
        """Raise ValueError unless real targets, (batch,) or (batch, outputs), suit the loss."""

    def reported(self, value: Any, n_outputs: int) -> Any:
        """Return an average loss as estimators report and compare it.

        Examples
        --------
        >>> from mlp_xp.nn.losses import Poisson, SquaredError
        >>> SquaredError().reported(6.0, 3), Poisson().reported(6.0, 3)
        (2.0, 6.0)
        """
        return value / n_outputs if self.is_mean_of_outputs and n_outputs > 1 else value


def mean_loss(
    loss: Loss, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
) -> tuple[Array, Callable[[], Array]]:
    r"""Compute the weighted average of a loss over a batch.

    :math:`L = \sum_i w_i\,\ell_i / \sum_i w_i`. Samples of weight 0, which fill up a batch, change
    nothing; if all weights are 0, so are the average and its gradient.

    Parameters
    ----------
    loss : Loss
    logits : (..., batch, outputs)
    targets : array
        As the loss takes them.
    weights : (..., batch), of the dtype of the logits, optional
        Default: 1 each.
    xp : namespace

    Returns
    -------
    value : (...), 0-d without leading axes
    pullback : callable
        ``pullback()`` returns ``dlogits : (..., batch, outputs)``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import SquaredError, mean_loss
    >>> outputs, targets = xp.asarray([[2.0], [1.0]]), xp.asarray([[0.0], [0.0]])
    >>> value, pullback = mean_loss(SquaredError(), outputs, targets, xp.asarray([3.0, 1.0]), xp=xp)
    >>> float(value)
    1.625
    >>> pullback()
    array([[1.5 ],
           [0.25]])
    """
    terms, pullback = loss.terms(logits, targets, xp=xp)
    share = shares(weights, logits.shape[-2], xp=xp)
    return xp.sum(terms * share, axis=(-2, -1)), lambda: pullback(share)


def average(values: Array, weights: Array | None, *, xp: Namespace) -> Array:
    """Return the weighted average of one value a sample, (..., batch), over the batch.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import average
    >>> float(average(xp.asarray([1.0, 0.0]), xp.asarray([3.0, 1.0]), xp=xp))
    0.75
    """
    share = shares(weights, values.shape[-1], xp=xp)
    return xp.sum(values[..., None] * share, axis=(-2, -1))


def mean_accuracy(
    loss: Loss, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
) -> Array:
    """Return the weighted share of the samples of a batch whose predicted class is right, (...).

    Parameters
    ----------
    loss : Loss
    logits : (..., batch, outputs)
    targets : array
        As the loss takes them.
    weights : (..., batch), of the dtype of the logits, optional
    xp : namespace

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import SoftmaxCrossEntropy, mean_accuracy
    >>> logits, labels = xp.asarray([[2.0, 1.0], [1.0, 2.0]]), xp.asarray([0, 0])
    >>> float(mean_accuracy(SoftmaxCrossEntropy(), logits, labels, xp=xp))
    0.5
    """
    return average(loss.is_correct(logits, targets, xp=xp), weights, xp=xp)


def log_bounds(dtype: DType, *, xp: Namespace) -> tuple[float, float]:
    """Return the logarithms of eps and 1 - eps, which scikit-learn clips probabilities to."""
    eps = float(xp.finfo(dtype).eps)
    return math.log(eps), math.log1p(-eps)
