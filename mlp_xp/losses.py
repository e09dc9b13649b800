r"""Losses of the network's raw outputs: each value with its pullback, in one function.

A loss is the last link of the chain: its pullback takes nothing, since the gradient of the loss
with respect to itself is 1, and gives the gradient with respect to the raw outputs (the *logits*,
before any output activation). All are averages over the batch, weighted if weights are given:
:math:`L = \sum_i w_i\,\ell_i / \sum_i w_i`. The output activation is folded into the loss, so
none takes the logarithm of a number that may have been rounded to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from array_api_compat import device

from mlp_xp._typing import Array, Namespace
from mlp_xp.layers import sigmoid

__all__ = [
    "BinaryCrossEntropy",
    "Loss",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "average",
    "one_hot",
    "softmax",
]

LossPullback = Callable[[], Array]


class Loss(Protocol):
    """A loss of raw outputs against targets, and the matching output activation; hashable."""

    def __hash__(self) -> int: ...

    def __call__(
        self, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> tuple[Array, LossPullback]:
        """Give the average loss, 0-d, and the pullback that gives ``dlogits``."""
        ...

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Turn raw outputs into what the network predicts: probabilities, or values."""
        ...

    def hits(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Tell for each sample, as 0 or 1, whether the predicted class is the right one."""
        ...


def one_hot(labels: Array, n_classes: int, *, dtype: object, xp: Namespace) -> Array:
    """Turn integer labels of shape (...) into 0 and 1 of shape (..., n_classes).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.losses import one_hot
    >>> one_hot(xp.asarray([2, 0]), 3, dtype=xp.float64, xp=xp)
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    classes = xp.arange(n_classes, dtype=labels.dtype, device=device(labels))
    return xp.astype(labels[..., None] == classes, dtype)


def softmax(logits: Array, *, xp: Namespace) -> Array:
    """Give the probabilities, ``exp(z) / sum(exp(z))`` over the last axis, without overflow.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.losses import softmax
    >>> softmax(xp.asarray([[1e4, 1e4, -1e4]]), xp=xp)
    array([[0.5, 0.5, 0. ]])
    """
    p = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    p /= xp.sum(p, axis=-1, keepdims=True)
    return p


def average(values: Array, weights: Array | None, *, xp: Namespace) -> Array:
    """Give the weighted average of one value a sample, 0-d.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.losses import average
    >>> float(average(xp.asarray([1.0, 0.0]), xp.asarray([3.0, 1.0]), xp=xp))
    0.75
    """
    share = _share(weights, values.shape[0], xp=xp)
    return xp.sum(values[:, None] * share)


def _share(weights: Array | None, n_samples: int, *, xp: Namespace) -> Array | float:
    """Give the share of each sample in the average, ``w / sum(w)`` as a column, or ``1 / n``.

    A batch may hold only samples of weight 0: its share is 0 too, not 0 / 0.
    """
    if weights is None:
        return 1.0 / n_samples
    least = float(xp.finfo(weights.dtype).smallest_normal)
    return (weights / xp.maximum(xp.sum(weights), least))[:, None]


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    r"""Cross-entropy of a softmax over classes.

    With targets :math:`t` that sum to 1 and :math:`p = \mathrm{softmax}(z)`,
    :math:`\ell = -\sum_k t_k \log p_k` and :math:`\partial \ell / \partial z = p - t`.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default=0
        Mixes the targets with the uniform distribution: :math:`(1 - \epsilon)\,t + \epsilon / K`.

    References
    ----------
    Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4; for the smoothing
    Szegedy et al. (2016), arXiv:1512.00567.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.losses import SoftmaxCrossEntropy
    >>> loss = SoftmaxCrossEntropy()
    >>> value, pullback = loss(xp.asarray([[-1e4, 1e4], [0.0, 0.0]]), xp.asarray([1, 0]), xp=xp)
    >>> round(float(value), 4)  # half of log(2)
    0.3466
    >>> pullback()
    array([[ 0.  ,  0.  ],
           [-0.25,  0.25]])
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing!r}, and must be at least 0 and below 1; "
                "0.1 is common."
            )

    def __call__(
        self, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> tuple[Array, LossPullback]:
        """Give the average loss and its pullback.

        Parameters
        ----------
        logits : (batch, classes)
        targets : (batch,) integer labels from 0, or (batch, classes) probabilities
        weights : (batch,), of the dtype of the logits, optional
        xp : namespace

        Returns
        -------
        value : 0-d array
        pullback : callable
            Gives ``dlogits : (batch, classes)``.
        """
        n_samples, n_classes = logits.shape
        if targets.ndim == 1:
            targets = one_hot(targets, n_classes, dtype=logits.dtype, xp=xp)
        if self.label_smoothing:
            targets = targets * (1.0 - self.label_smoothing) + self.label_smoothing / n_classes
        share = _share(weights, n_samples, xp=xp)

        shifted = logits - xp.max(logits, axis=1, keepdims=True)
        p = xp.exp(shifted)
        total = xp.sum(p, axis=1, keepdims=True)
        shifted -= xp.log(total)
        p /= total
        shifted *= targets
        shifted *= share

        def pullback() -> Array:
            dlogits = p - targets
            dlogits *= share
            return dlogits

        return -xp.sum(shifted), pullback

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Give the class probabilities, (batch, classes)."""
        return softmax(logits, xp=xp)

    def hits(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Tell for each sample, as 0 or 1, whether the most likely class is the target's."""
        if targets.ndim == 2:
            targets = xp.argmax(targets, axis=1)
        predicted = xp.astype(xp.argmax(logits, axis=1), targets.dtype)
        return xp.astype(predicted == targets, logits.dtype)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    r"""Cross-entropy of independent logistic outputs, summed over the outputs of a sample.

    With targets :math:`t` in [0, 1] and :math:`p = 1 / (1 + e^{-z})`,
    :math:`\ell = -\sum_k t_k \log p_k + (1 - t_k) \log(1 - p_k)`, computed as
    :math:`\sum_k \max(z_k, 0) - z_k t_k + \log(1 + e^{-|z_k|})`, and
    :math:`\partial \ell / \partial z = p - t`.

    References
    ----------
    Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.2.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.losses import BinaryCrossEntropy
    >>> loss = BinaryCrossEntropy()
    >>> value, pullback = loss(xp.asarray([[1e4], [-1e4]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> float(value)
    5000.0
    >>> pullback()
    array([[ 0. ],
           [-0.5]])
    """

    def __call__(
        self, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> tuple[Array, LossPullback]:
        """Give the average loss and its pullback.

        Parameters
        ----------
        logits : (batch, outputs)
        targets : (batch, outputs), from 0 to 1, of the dtype of the logits
        weights : (batch,), of the dtype of the logits, optional
        xp : namespace

        Returns
        -------
        value : 0-d array
        pullback : callable
            Gives ``dlogits : (batch, outputs)``.
        """
        share = _share(weights, logits.shape[0], xp=xp)
        losses = xp.log1p(xp.exp(-xp.abs(logits)))
        losses += xp.maximum(logits, 0.0)
        losses -= logits * targets
        losses *= share

        def pullback() -> Array:
            dlogits = sigmoid(logits, xp=xp)
            dlogits -= targets
            dlogits *= share
            return dlogits

        return xp.sum(losses), pullback

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Give the probability of each output being 1, (batch, outputs)."""
        return sigmoid(logits, xp=xp)

    def hits(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Tell for each sample, as 0 or 1, whether all its outputs are on the right side."""
        return xp.astype(xp.all((logits > 0.0) == (targets > 0.5), axis=1), logits.dtype)


@dataclass(frozen=True)
class SquaredError:
    r"""Half the squared error, summed over the outputs of a sample.

    :math:`\ell = \tfrac12 \sum_k (z_k - t_k)^2` and :math:`\partial \ell / \partial z = z - t`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.losses import SquaredError
    >>> loss = SquaredError()
    >>> value, pullback = loss(xp.asarray([[3.0], [1.0]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> float(value)
    1.0
    >>> pullback()
    array([[1.],
           [0.]])
    """

    def __call__(
        self, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> tuple[Array, LossPullback]:
        """Give the average loss and its pullback.

        Parameters
        ----------
        logits : (batch, outputs)
        targets : (batch, outputs), of the dtype of the logits
        weights : (batch,), of the dtype of the logits, optional
        xp : namespace

        Returns
        -------
        value : 0-d array
        pullback : callable
            Gives ``dlogits : (batch, outputs)``.
        """
        share = _share(weights, logits.shape[0], xp=xp)
        error = logits - targets
        return 0.5 * xp.sum(error * error * share), lambda: error * share

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Give the outputs as they are."""
        return logits

    def hits(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Refuse: a real value is not right or wrong."""
        raise TypeError("SquaredError has no accuracy; use SoftmaxCrossEntropy for classes.")
