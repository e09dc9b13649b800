"""Losses of classes: cross-entropies, and focal losses that turn to the hard samples."""

from __future__ import annotations

from dataclasses import dataclass

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers import sigmoid
from mlp_xp.nn.losses._base import (
    Loss,
    LossPullback,
    check_gamma,
    check_label_smoothing,
    log_bounds,
    shares,
)

__all__ = [
    "CLASSIFICATION_LOSSES",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "SoftmaxCrossEntropy",
    "SoftmaxFocal",
    "one_hot",
    "softmax",
]


def one_hot(labels: Array, n_classes: int, *, dtype: object, xp: Namespace) -> Array:
    """Turn integer labels of shape (...) into 0 and 1 of shape (..., n_classes).

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import one_hot
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
    >>> from mlp_xp.nn.losses import softmax
    >>> softmax(xp.asarray([[1e4, 1e4, -1e4]]), xp=xp)
    array([[0.5, 0.5, 0. ]])
    """
    p = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    p /= xp.sum(p, axis=-1, keepdims=True)
    return p


def _log_softmax(logits: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Give the logarithms of the probabilities, all finite, and the probabilities."""
    log_p = logits - xp.max(logits, axis=1, keepdims=True)
    p = xp.exp(log_p)
    total = xp.sum(p, axis=1, keepdims=True)
    log_p -= xp.log(total)
    p /= total
    return log_p, p


class _OneOfManyClasses:
    output = "softmax"

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Give the class probabilities, (batch, classes)."""
        return softmax(logits, xp=xp)

    def hits(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Tell for each sample, as 0 or 1, whether the most likely class is the target's."""
        if targets.ndim == 2:
            targets = xp.argmax(targets, axis=1)
        predicted = xp.astype(xp.argmax(logits, axis=1), targets.dtype)
        return xp.astype(predicted == targets, logits.dtype)


class _EachYesOrNo:
    output = "logistic"

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Give the probability of each output being 1, (batch, outputs)."""
        return sigmoid(logits, xp=xp)

    def hits(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Tell for each sample, as 0 or 1, whether all its outputs are on the right side."""
        return xp.astype(xp.all((logits > 0.0) == (targets > 0.5), axis=1), logits.dtype)


@dataclass(frozen=True)
class SoftmaxCrossEntropy(_OneOfManyClasses):
    r"""Cross-entropy of a softmax over classes.

    With targets :math:`t` that sum to 1 and :math:`p = \mathrm{softmax}(z)`,
    :math:`\ell = -\sum_k t_k \log p_k` and :math:`\partial \ell / \partial z = p - t`. In the
    value, as in scikit-learn, each :math:`p_k` is clipped to :math:`[\epsilon, 1 - \epsilon]` with
    the machine epsilon of the dtype; the gradient is not.

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
    >>> from mlp_xp.nn.losses import SoftmaxCrossEntropy
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
        check_label_smoothing(self.label_smoothing)

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
        share = shares(weights, n_samples, xp=xp)

        log_p, p = _log_softmax(logits, xp=xp)
        lowest, highest = log_bounds(logits.dtype, xp=xp)
        losses = xp.minimum(xp.maximum(log_p, lowest), highest)
        losses *= targets
        losses *= share

        def pullback() -> Array:
            dlogits = p - targets
            dlogits *= share
            return dlogits

        return -xp.sum(losses), pullback


@dataclass(frozen=True)
class BinaryCrossEntropy(_EachYesOrNo):
    r"""Cross-entropy of independent logistic outputs, summed over the outputs of a sample.

    With targets :math:`t` in [0, 1] and :math:`p = 1 / (1 + e^{-z})`,
    :math:`\ell = -\sum_k t_k \log p_k + (1 - t_k) \log(1 - p_k)`, computed as
    :math:`\sum_k \max(z_k, 0) - z_k t_k + \log(1 + e^{-|z_k|})`, and
    :math:`\partial \ell / \partial z = p - t`. In the value, as in scikit-learn, each :math:`p_k`
    is clipped to :math:`[\epsilon, 1 - \epsilon]` with the machine epsilon of the dtype; the
    gradient is not.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default=0
        Mixes the targets with one half: :math:`(1 - \epsilon)\,t + \epsilon / 2`.

    References
    ----------
    Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.2; for the smoothing
    Szegedy et al. (2016), arXiv:1512.00567.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import BinaryCrossEntropy
    >>> loss = BinaryCrossEntropy()
    >>> value, pullback = loss(xp.asarray([[1e4], [-1e4]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> round(float(value), 2)  # half of -log(eps)
    18.02
    >>> pullback()
    array([[ 0. ],
           [-0.5]])
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_label_smoothing(self.label_smoothing)

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
        if self.label_smoothing:
            targets = targets * (1.0 - self.label_smoothing) + self.label_smoothing / 2
        share = shares(weights, logits.shape[0], xp=xp)
        lowest, highest = log_bounds(logits.dtype, xp=xp)
        most = highest - lowest  # The logit of 1 - eps.
        z = xp.minimum(xp.maximum(logits, -most), most)
        losses = xp.log1p(xp.exp(-xp.abs(z)))
        losses += xp.maximum(z, 0.0)
        losses -= z * targets
        losses *= share

        def pullback() -> Array:
            dlogits = sigmoid(logits, xp=xp)
            dlogits -= targets
            dlogits *= share
            return dlogits

        return xp.sum(losses), pullback


@dataclass(frozen=True)
class SoftmaxFocal(_OneOfManyClasses):
    r"""Focal loss of a softmax over classes: cross-entropy that turns to the hard samples.

    With targets :math:`t` that sum to 1 and :math:`p = \mathrm{softmax}(z)`,
    :math:`\ell = -\sum_k t_k (1 - p_k)^\gamma \log p_k`. With
    :math:`g_k = t_k (1 - p_k)^\gamma \left(\gamma\,p_k \frac{\log p_k}{1 - p_k} - 1\right)`,
    the derivative by :math:`\log p_k`,
    :math:`\partial \ell / \partial z_j = g_j - p_j \sum_k g_k`.

    Parameters
    ----------
    gamma : float >= 0, default=2.0
        How little a sample counts whose class is likely already; 0 gives the cross-entropy.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollár, "Focal loss for dense object detection" (2017),
    arXiv:1708.02002.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import SoftmaxFocal
    >>> loss = SoftmaxFocal(gamma=2.0)
    >>> value, pullback = loss(xp.asarray([[-1e4, 1e4], [0.0, 0.0]]), xp.asarray([1, 0]), xp=xp)
    >>> round(float(value), 4)  # an eighth of log(2)
    0.0866
    >>> xp.round(pullback()[1, :], 3)  # the first sample is certain, and right
    array([-0.149,  0.149])
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_gamma(self.gamma)

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
        log_p, p = _log_softmax(logits, xp=xp)
        # 1 - p would lose the digits of a p near 1.
        q = -xp.expm1(log_p)
        factor = xp.pow(q, float(self.gamma))
        factor *= targets
        factor *= shares(weights, n_samples, xp=xp)

        def pullback() -> Array:
            # Where q is 0 any fraction will do: the factor is 0, or gamma.
            g = log_p / xp.where(q > 0.0, q, 1.0)
            g *= p
            g *= self.gamma
            g -= 1.0
            g *= factor
            g -= p * xp.sum(g, axis=1, keepdims=True)
            return g

        return -xp.sum(factor * log_p), pullback


@dataclass(frozen=True)
class BinaryFocal(_EachYesOrNo):
    r"""Focal loss of independent logistic outputs, summed over the outputs of a sample.

    With targets :math:`t` in [0, 1], :math:`p = 1 / (1 + e^{-z})` and :math:`q = 1 - p`,
    :math:`\ell = -\sum_k t_k\,q_k^\gamma \log p_k + (1 - t_k)\,p_k^\gamma \log q_k` and
    :math:`\partial \ell / \partial z = t\,q^\gamma (\gamma\,p \log p - q) -
    (1 - t)\,p^\gamma (\gamma\,q \log q - p)`.

    Parameters
    ----------
    gamma : float >= 0, default=2.0
        How little an output counts that is right already; 0 gives the cross-entropy.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollár, "Focal loss for dense object detection" (2017),
    arXiv:1708.02002.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import BinaryFocal
    >>> loss = BinaryFocal(gamma=2.0)
    >>> value, pullback = loss(xp.asarray([[1e4], [-1e4]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> float(value)
    5000.0
    >>> pullback()
    array([[ 0. ],
           [-0.5]])
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_gamma(self.gamma)

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
        share = shares(weights, logits.shape[0], xp=xp)
        gamma = float(self.gamma)
        p, q = sigmoid(logits, xp=xp), sigmoid(-logits, xp=xp)
        tail = xp.log1p(xp.exp(-xp.abs(logits)))
        log_p = xp.minimum(logits, 0.0) - tail
        log_q = xp.minimum(-logits, 0.0) - tail
        yes = xp.pow(q, gamma) * targets
        no = xp.pow(p, gamma) * (1.0 - targets)

        def pullback() -> Array:
            dlogits = yes * (gamma * p * log_p - q)
            dlogits -= no * (gamma * q * log_q - p)
            dlogits *= share
            return dlogits

        return -xp.sum((yes * log_p + no * log_q) * share), pullback


# For one of many classes, and for outputs that each say yes or no.
CLASSIFICATION_LOSSES: dict[str, tuple[type[Loss], type[Loss]]] = {
    "log_loss": (SoftmaxCrossEntropy, BinaryCrossEntropy),
    "focal": (SoftmaxFocal, BinaryFocal),
}
