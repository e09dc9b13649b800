"""Losses of activated outputs: an output activation before a loss, and the user's own loss."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers import Activation, exp, identity, logistic, relu, softplus, tanh
from mlp_xp.nn.losses._base import ErrorLoss, Loss, LossPullback
from mlp_xp.nn.losses._classification import BinaryCrossEntropy, SoftmaxCrossEntropy, softmax

__all__ = ["OUTPUTS", "Custom", "Through"]

OUTPUTS: dict[str, Activation] = {
    "identity": identity,
    "logistic": logistic,
    "tanh": tanh,
    "exp": exp,
    "softplus": softplus,
    "relu": relu,
}


@dataclass(frozen=True)
class Through:
    r"""A loss of real values, of activated outputs: :math:`\ell(g(z), t)`.

    By the chain rule :math:`\partial \ell / \partial z` is the pullback of :math:`g` at
    :math:`\partial \ell / \partial g`. For outputs that are bounded or never negative; a
    classifier's cross-entropy has its output activation inside already, and so has `Poisson`.

    Parameters
    ----------
    loss : ErrorLoss
        `SquaredError`, `AbsoluteError`, `Huber` or `Quantile`.
    output : str
        A name in `OUTPUTS`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import SquaredError, Through
    >>> loss = Through(SquaredError(), "exp")
    >>> value, pullback = loss(xp.asarray([[0.0]]), xp.asarray([[3.0]]), xp=xp)
    >>> float(value)
    2.0
    >>> pullback()
    array([[-2.]])
    """

    loss: Loss
    output: str

    is_mean_of_outputs = True

    def __post_init__(self) -> None:
        if not isinstance(self.loss, ErrorLoss):
            own = "" if isinstance(self.loss, str) else ", which brings its own outputs,"
            raise ValueError(
                f"Through takes a loss of real values, SquaredError(), AbsoluteError(), Huber() or "
                f"Quantile(); {self.loss!r}{own} is none. Custom takes a function of your own."
            )
        if self.output not in OUTPUTS:
            raise ValueError(f"output is {self.output!r}, and must be one of {list(OUTPUTS)}.")

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
        outputs, output_pullback = OUTPUTS[self.output](logits, xp=xp)
        value, pullback = self.loss(outputs, targets, weights, xp=xp)
        return value, lambda: output_pullback(pullback())

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Give the activated outputs, (batch, outputs)."""
        return OUTPUTS[self.output](logits, xp=xp)[0]

    def hits(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Refuse: a real value is not right or wrong."""
        return self.loss.hits(logits, targets, xp=xp)


@dataclass(frozen=True)
class Custom:
    r"""A loss of the user's own, of activated outputs.

    The function is called as ``function(outputs, targets, weights, *, xp)`` with ``outputs :
    (batch, outputs)``, the targets as the network is trained with, and ``weights : (batch,)``, or
    None where all are 1. It gives the average loss, 0-d, and a pullback: a callable without
    arguments that gives the gradient with respect to the outputs. The chain rule through the output
    activation is done here; for a softmax that is
    :math:`\partial \ell / \partial z = p\,(\bar p - \sum_k \bar p_k p_k)`.
    `mlp_xp.nn.gradient_check.check_loss` tells whether a pullback is right.

    Parameters
    ----------
    function : callable
        Written with the names of the Array API. It may not write to its arguments, nor branch on
        their values, since a backend may compile it; averages over a batch must be finite even
        where all weights are 0, for which there is `shares`.
    output : str, default="identity"
        A name in `OUTPUTS`, or ``"softmax"``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import Custom, shares
    >>> def fourth_power(outputs, targets, weights, *, xp):
    ...     share = shares(weights, outputs.shape[0], xp=xp)
    ...     error = outputs - targets
    ...     return xp.sum(error**4 * share), lambda: 4.0 * error**3 * share
    >>> loss = Custom(fourth_power)
    >>> value, pullback = loss(xp.asarray([[3.0], [1.0]]), xp.asarray([[1.0], [1.0]]), xp=xp)
    >>> float(value)
    8.0
    >>> pullback()
    array([[16.],
           [ 0.]])
    """

    function: Callable[..., tuple[Array, LossPullback]]
    output: str = "identity"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ValueError(
                f"function is {self.function!r}, and must be a callable, "
                "function(outputs, targets, weights, *, xp), that gives (value, pullback)."
            )
        if not isinstance(self.function, Hashable):
            raise ValueError(
                f"function is {self.function!r}, which is not hashable; make its class a frozen "
                "dataclass, or give a plain function."
            )
        if self.output not in (*OUTPUTS, "softmax"):
            raise ValueError(
                f"output is {self.output!r}, and must be one of {[*OUTPUTS, 'softmax']}."
            )

    def __call__(
        self, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> tuple[Array, LossPullback]:
        """Give the average loss and its pullback.

        Parameters
        ----------
        logits : (batch, outputs)
        targets : array
            As the function takes them.
        weights : (batch,), of the dtype of the logits, optional
        xp : namespace

        Returns
        -------
        value : 0-d array
        pullback : callable
            Gives ``dlogits : (batch, outputs)``.
        """
        outputs, output_pullback = _output(self.output)(logits, xp=xp)
        value, pullback = self.function(outputs, targets, weights, xp=xp)
        return value, lambda: output_pullback(pullback())

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Give the activated outputs, (batch, outputs)."""
        return _output(self.output)(logits, xp=xp)[0]

    def hits(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Tell for each sample, as 0 or 1, whether the predicted class is the right one.

        The class is the largest output where they are a softmax's or the targets are labels, and
        the side of one half where they are logistic; other outputs have none, a TypeError.
        """
        labels = targets.ndim == 1 and logits.shape[1] > 1
        if self.output == "softmax" or labels:
            return SoftmaxCrossEntropy().hits(logits, targets, xp=xp)
        if self.output == "logistic":
            column = targets[:, None] if targets.ndim == 1 else targets
            return BinaryCrossEntropy().hits(logits, column, xp=xp)
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
