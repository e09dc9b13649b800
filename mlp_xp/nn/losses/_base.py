"""What every loss is, and what they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from mlp_xp._utils.array_types import Array, DType, Namespace
from mlp_xp.nn.layers import shares

__all__ = [
    "ErrorLoss",
    "Loss",
    "LossPullback",
    "RealValued",
    "average",
    "log_bounds",
    "reported",
    "shares",
]

LossPullback = Callable[[], Array]


class Loss(Protocol):
    """A loss of raw outputs against targets, and the matching output activation; hashable.

    Those of this package name the output activation in `output`, which estimators hold them to.
    """

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


def average(values: Array, weights: Array | None, *, xp: Namespace) -> Array:
    """Give the weighted average of one value a sample, 0-d.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import average
    >>> float(average(xp.asarray([1.0, 0.0]), xp.asarray([3.0, 1.0]), xp=xp))
    0.75
    """
    share = shares(weights, values.shape[0], xp=xp)
    return xp.sum(values[:, None] * share)


def reported(loss: Loss, value: Any, n_outputs: int) -> Any:
    """Return a loss as estimators report and compare it, which is as scikit-learn does.

    A loss of errors is the mean over the outputs there; its gradient is still that of the sum.

    Examples
    --------
    >>> from mlp_xp.nn.losses import Poisson, SquaredError, reported
    >>> reported(SquaredError(), 6.0, 3), reported(Poisson(), 6.0, 3)
    (2.0, 6.0)
    """
    is_mean = getattr(loss, "is_mean_of_outputs", False) and n_outputs > 1
    return value / n_outputs if is_mean else value


def log_bounds(dtype: DType, *, xp: Namespace) -> tuple[float, float]:
    """Return the logarithms of eps and 1 - eps, which scikit-learn clips probabilities to."""
    eps = float(xp.finfo(dtype).eps)
    return math.log(eps), math.log1p(-eps)


class RealValued:
    """A loss of real values, none of which is right or wrong: it has no accuracy."""

    output = "identity"

    def hits(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Refuse: a real value is not right or wrong."""
        raise TypeError(
            f"{type(self).__name__} has no accuracy; use SoftmaxCrossEntropy for classes."
        )


class ErrorLoss(RealValued, ABC):
    r"""A loss of the error alone, summed over the outputs of a sample.

    :math:`\ell = \sum_k f(z_k - t_k)` and :math:`\partial \ell / \partial z = f'(z - t)`. The
    outputs are the values themselves, so that an output activation may be put before it
    (`Through`). A subclass gives :math:`f` and :math:`f'`.
    """

    is_mean_of_outputs = True  # See `reported`.

    @abstractmethod
    def of_error(self, error: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Give the loss of each error and its derivative, both of the error's shape."""

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
        share = shares(weights, logits.shape[0], xp=xp)
        losses, slope = self.of_error(logits - targets, xp=xp)
        return xp.sum(losses * share), lambda: slope * share

    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Give the outputs as they are."""
        return logits


def check_label_smoothing(value: float) -> None:
    """Refuse a share of the uniform distribution that is none."""
    if not 0.0 <= value < 1.0:
        raise ValueError(
            f"label_smoothing is {value!r}, and must be at least 0 and below 1; 0.1 is common."
        )


def check_gamma(value: float) -> None:
    """Refuse an exponent that would weigh the easy samples more, or without bound."""
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"gamma is {value!r}, and must be at least 0 and finite; 2.0 is common.")
