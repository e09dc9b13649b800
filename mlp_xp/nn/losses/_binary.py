"""Cross-entropy of independent binary outputs."""

from __future__ import annotations

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import hyperparameter
from mlp_xp.nn.layers import sigmoid
from mlp_xp.nn.losses._base import Loss, Terms, log_bounds
from mlp_xp.nn.losses._softmax import check_label_smoothing, misfit_message, smoothed


class YesOrNo(Loss):
    """A loss for logistic outputs. Each output has a target from 0 to 1."""

    output = "logistic"

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the probability that each output is 1, (..., batch, outputs)."""
        return sigmoid(logits, xp=xp)

    def is_correct(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Return 1 for each sample whose outputs are all correct, else 0."""
        return xp.astype(xp.all((logits > 0.0) == (targets > 0.5), axis=-1), logits.dtype)

    def check_targets(self, targets: Array, name: str = "y", *, xp: Namespace) -> None:
        """Raise ValueError unless all targets are from 0 to 1."""
        if xp.min(targets) < 0 or xp.max(targets) > 1:
            raise ValueError(misfit_message(self, "be from 0 to 1", targets, name, xp=xp))


@dataclass(frozen=True)
class BinaryCrossEntropy(YesOrNo):
    r"""Cross-entropy of independent logistic outputs, summed over the outputs of a sample.

    With targets :math:`t` in [0, 1] and :math:`p = 1 / (1 + e^{-z})`, :math:`\ell = -\sum_k t_k
    \log p_k + (1 - t_k) \log(1 - p_k)`, computed as :math:`\sum_k \max(z_k, 0) - z_k t_k + \log(1 +
    e^{-|z_k|})`, and :math:`\partial \ell / \partial z = p - t`. As in scikit-learn, the loss clips
    each :math:`p_k` to :math:`[\epsilon, 1 - \epsilon]`, where :math:`\epsilon` is the machine
    epsilon of the dtype; the gradient uses the exact :math:`p_k`.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default=0
        The weight s of one half in the targets, :math:`(1 - s)\,t + s / 2`.

    References
    ----------
    Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.2; for the smoothing
    Szegedy et al. (2016), arXiv:1512.00567.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import BinaryCrossEntropy
    >>> loss = BinaryCrossEntropy()
    >>> losses, pullback = loss(xp.asarray([[1e4], [-1e4]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> losses.round(2)  # 0 and -log(eps)
    array([ 0.  , 36.04])
    >>> pullback(xp.ones(2))
    array([[ 0.],
           [-1.]])
    """

    label_smoothing: float = hyperparameter(0.0)

    def __post_init__(self) -> None:
        check_label_smoothing(self.label_smoothing)

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the cross-entropy of each output."""
        targets = smoothed(targets, self.label_smoothing, 2)
        lowest, highest = log_bounds(logits.dtype, xp=xp)
        bound = highest - lowest  # The logit of the probability 1 - eps.
        z = xp.minimum(xp.maximum(logits, -bound), bound)
        terms = xp.log1p(xp.exp(-xp.abs(z)))
        terms += xp.maximum(z, 0.0)
        terms -= z * targets

        def pullback(dloss: Array | float) -> Array:
            dlogits = sigmoid(logits, xp=xp)
            dlogits -= targets
            dlogits *= dloss
            return dlogits

        return terms, pullback
