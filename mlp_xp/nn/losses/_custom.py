"""User-defined losses."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.compiler import with_pullback
from mlp_xp.nn.layers import Activation, name_of
from mlp_xp.nn.losses._base import Loss, LossPullback, Terms
from mlp_xp.nn.losses._binary import BinaryCrossEntropy
from mlp_xp.nn.losses._softmax import SoftmaxCrossEntropy, softmax
from mlp_xp.nn.losses._through import OUTPUTS


@dataclass(frozen=True)
class Custom(Loss):
    r"""A user-defined loss of activated outputs.

    The function is called as ``function(outputs, targets, *, xp)`` with ``outputs : (batch,
    outputs)`` and the targets for training. It returns the loss of each sample, (batch,); its
    gradient is derived. It may also return a pullback, ``(losses, pullback)``. Then
    ``pullback(dlosses)``, with ``dlosses : (batch,)``, returns the gradient with respect to the
    outputs, (batch, outputs), in which each row is multiplied by the row's entry in ``dlosses``.
    `mean_loss` applies weights and averages. This class applies the chain rule through
    the output activation; for a softmax, :math:`\partial \ell / \partial z = p\,(\bar p - \sum_k
    \bar p_k p_k)`. `mlp_xp.nn.gradient_check.check_loss` compares a pullback with a finite
    difference.

    Parameters
    ----------
    function : callable
        A function that uses only the Array API. It must not write to its arguments or branch on
        their values, since a backend may compile it. If the function indexes only the last axes, as
        below, it also works for a stack of models.
    output : str, default="identity"
        A name in `OUTPUTS`, or ``"softmax"``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import Custom
    >>> def fourth_power(outputs, targets, *, xp):
    ...     return xp.sum((outputs - targets) ** 4, axis=-1)
    >>> loss = Custom(fourth_power)
    >>> losses, pullback = loss(xp.asarray([[3.0], [1.0]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> losses
    array([16.,  0.])
    >>> pullback(xp.ones(2))
    array([[32.],
           [ 0.]])
    """

    function: Callable[..., Array | tuple[Array, LossPullback]]
    output: str = "identity"

    is_own = True

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ValueError(
                "`function` must be a callable, function(outputs, targets, *, xp), that returns "
                f"the loss of each sample, got {self.function!r}."
            )
        if not isinstance(self.function, Hashable):
            raise ValueError(
                f"`function` must be hashable, got {self.function!r}; make its class a frozen "
                "dataclass, or pass a plain function."
            )
        if self.output not in (*OUTPUTS, "softmax"):
            raise ValueError(
                f"`output` must be one of {[*OUTPUTS, 'softmax']}, got {self.output!r}."
            )

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the loss of each sample."""
        outputs, pull_output = _output(self.output)(logits, xp=xp)
        losses, pullback = with_pullback(
            self.function,
            outputs,
            targets,
            xp=xp,
            names=["outputs", "targets"],
            what=f"loss {name_of(self.function)}",
        )

        def pull(dloss: Array | float) -> Array:
            # Pass one number per sample, so the user's pullback need not broadcast.
            dlosses = xp.ones_like(losses)[..., None] * dloss
            return pull_output(pullback(dlosses[..., 0]))

        return losses[..., None], pull

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the activated outputs, (..., batch, outputs)."""
        return _output(self.output)(logits, xp=xp)[0]

    def is_correct(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Return 1 for each sample whose predicted class is correct, else 0.

        For softmax outputs or labels, the predicted class has the largest output. For logistic
        outputs, the threshold is one half. Raise TypeError for other outputs.
        """
        is_labels = not xp.isdtype(targets.dtype, "real floating")
        if self.output == "softmax" or (is_labels and logits.shape[-1] > 1):
            return SoftmaxCrossEntropy().is_correct(logits, targets, xp=xp)
        if self.output == "logistic":
            columns = targets[..., None] if is_labels else targets
            return BinaryCrossEntropy().is_correct(logits, columns, xp=xp)
        raise TypeError(
            f"A Custom loss with output {self.output!r} has no accuracy; "
            "use output='softmax' or 'logistic' for classes."
        )


def _output(name: str) -> Activation:
    return _softmax_output if name == "softmax" else OUTPUTS[name]


def _softmax_output(x: Array, *, xp: Namespace) -> tuple[Array, Callable[[Array], Array]]:
    p = softmax(x, xp=xp)

    def pullback(dp: Array) -> Array:
        return (dp - xp.sum(dp * p, axis=-1, keepdims=True)) * p

    return p, pullback
