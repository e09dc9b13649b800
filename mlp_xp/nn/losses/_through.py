"""Error losses with an output activation."""

from __future__ import annotations

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.layers import Activation, exp, identity, logistic, relu, softplus, tanh
from mlp_xp.nn.losses._base import Terms, invert
from mlp_xp.nn.losses._errors import ErrorLoss
from mlp_xp.nn.losses._wrapped import Wrapped

OUTPUTS: dict[str, Activation] = {
    "identity": identity,
    "logistic": logistic,
    "tanh": tanh,
    "exp": exp,
    "softplus": softplus,
    "relu": relu,
}


@dataclass(frozen=True)
class Through(Wrapped):
    r"""A loss for real-valued targets, applied to activated outputs: :math:`\ell(g(z), t)`.

    By the chain rule, :math:`\partial \ell / \partial z` is the pullback of :math:`g`, applied to
    :math:`\partial \ell / \partial g`. Use this loss for outputs that are bounded or never
    negative. Cross-entropies and `Poisson` already include their output activation.

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
    >>> losses, pullback = loss(xp.asarray([[0.0]]), xp.asarray([[3.0]]), xp=xp)
    >>> losses
    array([2.])
    >>> pullback(xp.ones(1))
    array([[-2.]])
    """

    loss: ErrorLoss
    output: str

    is_mean_of_outputs = True

    def __post_init__(self) -> None:
        if not isinstance(self.loss, ErrorLoss):
            own = "" if isinstance(self.loss, str) else ", which has its own output activation"
            raise ValueError(
                "The loss of Through must be SquaredError(), AbsoluteError(), Huber() or "
                f"Quantile(), got {self.loss!r}{own}. For your own function, use Custom."
            )
        if self.output not in OUTPUTS:
            raise ValueError(f"`output` must be one of {list(OUTPUTS)}, got {self.output!r}.")

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Compute the loss of each activated output."""
        values, pull_values = self.loss.values(logits, xp=xp)
        outputs, pull_output = OUTPUTS[self.output](values, xp=xp)
        terms, pullback = self.loss.of_values(outputs, targets, xp=xp)
        return terms, lambda dloss: pull_values(pull_output(pullback(dloss)))

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the activated outputs, (..., batch, outputs)."""
        return OUTPUTS[self.output](self.loss.activate(logits, xp=xp), xp=xp)[0]

    def raw_outputs(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the raw outputs for which `activate` returns ``outputs``."""
        return self.loss.raw_outputs(invert(self.output, outputs, xp=xp), xp=xp)
