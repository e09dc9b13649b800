"""Softmax, and its cross-entropy for mutually exclusive classes."""

from __future__ import annotations

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.settings import hyperparameter, is_array, is_zero
from mlp_xp.nn.losses._base import Loss, Terms, log_bounds


def one_hot(labels: Array, n_classes: int, *, dtype: object, xp: Namespace) -> Array:
    """Return integer labels, (...), as one-hot vectors, (..., n_classes)."""
    classes = xp.arange(n_classes, dtype=labels.dtype, device=device(labels))
    return xp.astype(labels[..., None] == classes, dtype)


def softmax(logits: Array, *, xp: Namespace) -> Array:
    """Return the probabilities, ``exp(z) / sum(exp(z))`` over the last axis, without overflow."""
    p = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    p /= xp.sum(p, axis=-1, keepdims=True)
    return p


def log_softmax(logits: Array, *, xp: Namespace) -> tuple[Array, Array]:
    """Return the logarithms of the probabilities, which are finite, and the probabilities."""
    log_p = logits - xp.max(logits, axis=-1, keepdims=True)
    p = xp.exp(log_p)
    total = xp.sum(p, axis=-1, keepdims=True)
    log_p -= xp.log(total)
    p /= total
    return log_p, p


class OneOfClasses(Loss):
    """A loss for softmax outputs. Targets are integer labels, or probabilities that add up to 1."""

    output = "softmax"

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the class probabilities, (..., batch, classes)."""
        return softmax(logits, xp=xp)

    def is_correct(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Return 1 for each sample whose most likely class is correct, else 0."""
        if xp.isdtype(targets.dtype, "real floating"):
            targets = xp.argmax(targets, axis=-1)
        predicted = xp.astype(xp.argmax(logits, axis=-1), targets.dtype)
        return xp.astype(predicted == targets, logits.dtype)

    def check_targets(self, targets: Array, name: str = "y", *, xp: Namespace) -> None:
        """Raise ValueError unless each row of targets contains the probabilities of classes."""
        is_distribution = (
            targets.ndim == 2
            and xp.min(targets) >= 0
            and xp.max(xp.abs(xp.sum(targets, axis=1) - 1.0)) <= 1e-3
        )
        if not is_distribution:
            need = "have several columns, no negative values, and rows that sum to 1"
            raise ValueError(misfit_message(self, need, targets, name, xp=xp))


def misfit_message(loss: Loss, need: str, targets: Array, name: str, *, xp: Namespace) -> str:
    """Return the error message for invalid targets of a classification loss."""
    return (
        f"With loss={loss!r}, {name} must {need}, got values from {xp.min(targets)} to "
        f"{xp.max(targets)} of shape {targets.shape}. For classes, use MLPClassifier; for numbers, "
        "another loss, e.g. SquaredError()."
    )


def probabilities(targets: Array, logits: Array, *, xp: Namespace) -> Array:
    """Return targets as probabilities, (..., batch, classes); labels become one-hot."""
    if xp.isdtype(targets.dtype, "real floating"):
        return targets
    return one_hot(targets, logits.shape[-1], dtype=logits.dtype, xp=xp)


@dataclass(frozen=True)
class SoftmaxCrossEntropy(OneOfClasses):
    r"""Cross-entropy of a softmax over classes.

    With targets :math:`t` that sum to 1 and :math:`p = \mathrm{softmax}(z)`, :math:`\ell = -\sum_k
    t_k \log p_k` and :math:`\partial \ell / \partial z = p - t`. As in scikit-learn, the loss clips
    each :math:`p_k` to :math:`[\epsilon, 1 - \epsilon]`, where :math:`\epsilon` is the machine
    epsilon of the dtype; the gradient uses the exact :math:`p_k`.

    Parameters
    ----------
    label_smoothing : float in [0, 1), default=0
        The weight s of the uniform distribution in the targets, :math:`(1 - s)\,t + s / K`.

    References
    ----------
    Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.4; for the smoothing
    Szegedy et al. (2016), arXiv:1512.00567.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import SoftmaxCrossEntropy
    >>> loss = SoftmaxCrossEntropy()
    >>> losses, pullback = loss(xp.asarray([[-1e4, 1e4], [0.0, 0.0]]), xp.asarray([1, 0]), xp=xp)
    >>> losses.round(4)
    array([0.    , 0.6931])
    >>> pullback(xp.ones(2))
    array([[ 0. ,  0. ],
           [-0.5,  0.5]])
    """

    label_smoothing: float = hyperparameter(0.0)

    def __post_init__(self) -> None:
        check_label_smoothing(self.label_smoothing)

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the cross-entropy of each class; targets are labels or probabilities."""
        targets = probabilities(targets, logits, xp=xp)
        targets = smoothed(targets, self.label_smoothing, logits.shape[-1])
        log_p, p = log_softmax(logits, xp=xp)
        lowest, highest = log_bounds(logits.dtype, xp=xp)
        terms = xp.minimum(xp.maximum(log_p, lowest), highest)
        terms *= targets

        def pullback(dloss: Array | float) -> Array:
            dlogits = p - targets
            dlogits *= dloss
            return dlogits

        return -terms, pullback


def smoothed(targets: Array, smoothing: float | Array, n_outcomes: int) -> Array:
    """Return the smoothed targets, ``(1 - smoothing) targets + smoothing / n_outcomes``.

    ``smoothing`` is a number, or an array with one number per model that broadcasts.
    """
    if is_zero(smoothing):
        return targets
    return targets * (1.0 - smoothing) + smoothing / n_outcomes


def check_label_smoothing(value: float) -> None:
    """Raise ValueError unless the label smoothing is at least 0 and below 1."""
    if not is_array(value) and not 0.0 <= value < 1.0:
        raise ValueError(
            f"`label_smoothing` must be at least 0 and below 1, got {value!r}; 0.1 is common."
        )
