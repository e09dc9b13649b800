"""Focal losses: cross-entropies with less weight for samples that are already correct."""

from __future__ import annotations

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.layers import sigmoid
from mlp_xp.nn.losses._base import Terms
from mlp_xp.nn.losses._binary import YesOrNo
from mlp_xp.nn.losses._softmax import OneOfClasses, log_softmax, probabilities


@dataclass(frozen=True)
class SoftmaxFocal(OneOfClasses):
    r"""Focal loss of a softmax over classes.

    With targets :math:`t` that sum to 1 and :math:`p = \mathrm{softmax}(z)`, :math:`\ell = -\sum_k
    t_k (1 - p_k)^\gamma \log p_k`. With :math:`g_k = t_k (1 - p_k)^\gamma \left(\gamma\,p_k
    \frac{\log p_k}{1 - p_k} - 1\right)`, the derivative with respect to :math:`\log p_k`,
    :math:`\partial \ell / \partial z_j = g_j - p_j \sum_k g_k`.

    Parameters
    ----------
    gamma : float >= 0, default=2.0
        Larger values reduce the weight of samples whose class is already likely; 0 is the
        cross-entropy.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollár, "Focal loss for dense object detection" (2017),
    arXiv:1708.02002.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import SoftmaxFocal
    >>> loss = SoftmaxFocal(gamma=2.0)
    >>> losses, pullback = loss(xp.asarray([[-1e4, 1e4], [0.0, 0.0]]), xp.asarray([1, 0]), xp=xp)
    >>> losses.round(4)  # 0 and a quarter of log(2)
    array([0.    , 0.1733])
    >>> xp.round(pullback(xp.ones(2))[1, :], 3)  # the first sample is certain, and right
    array([-0.298,  0.298])
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the focal loss of each class; targets are labels or probabilities."""
        targets = probabilities(targets, logits, xp=xp)
        log_p, p = log_softmax(logits, xp=xp)
        # If p is near 1, 1 - p would lose digits.
        q = -xp.expm1(log_p)
        factor = xp.pow(q, float(self.gamma))
        factor *= targets

        def pullback(dloss: Array | float) -> Array:
            # If q is 0, any divisor will do, because factor or gamma is 0.
            g = log_p / xp.where(q > 0.0, q, 1.0)
            g *= p
            g *= self.gamma
            g -= 1.0
            g *= factor * dloss
            g -= p * xp.sum(g, axis=-1, keepdims=True)
            return g

        return factor * -log_p, pullback


@dataclass(frozen=True)
class BinaryFocal(YesOrNo):
    r"""Focal loss of independent logistic outputs, summed over the outputs of a sample.

    With targets :math:`t` in [0, 1], :math:`p = 1 / (1 + e^{-z})` and :math:`q = 1 - p`,
    :math:`\ell = -\sum_k t_k\,q_k^\gamma \log p_k + (1 - t_k)\,p_k^\gamma \log q_k` and
    :math:`\partial \ell / \partial z = t\,q^\gamma (\gamma\,p \log p - q) -
    (1 - t)\,p^\gamma (\gamma\,q \log q - p)`.

    Parameters
    ----------
    gamma : float >= 0, default=2.0
        Larger values reduce the weight of outputs that are already correct; 0 is the cross-entropy.

    References
    ----------
    Lin, Goyal, Girshick, He, Dollár, "Focal loss for dense object detection" (2017),
    arXiv:1708.02002.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import BinaryFocal
    >>> loss = BinaryFocal(gamma=2.0)
    >>> losses, pullback = loss(xp.asarray([[1e4], [-1e4]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> losses
    array([    0., 10000.])
    >>> pullback(xp.ones(2))
    array([[ 0.],
           [-1.]])
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the focal loss of each output."""
        gamma = float(self.gamma)
        p, q = sigmoid(logits, xp=xp), sigmoid(-logits, xp=xp)
        tail = xp.log1p(xp.exp(-xp.abs(logits)))
        log_p = xp.minimum(logits, 0.0) - tail
        log_q = xp.minimum(-logits, 0.0) - tail
        yes = xp.pow(q, gamma) * targets
        no = xp.pow(p, gamma) * (1.0 - targets)

        def pullback(dloss: Array | float) -> Array:
            dlogits = yes * (gamma * p * log_p - q)
            dlogits -= no * (gamma * q * log_q - p)
            dlogits *= dloss
            return dlogits

        return -(yes * log_p + no * log_q), pullback


def _check_gamma(value: float) -> None:
    """Raise ValueError unless an exponent is at least 0 and finite."""
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"`gamma` must be at least 0 and finite, got {value!r}; 2.0 is common.")
