r"""Losses of the network's raw outputs: each value with its pullback, in one function.

A loss is the last link of the chain: its pullback takes nothing, since the gradient of the loss
with respect to itself is 1, and gives the gradient with respect to the raw outputs (the *logits*,
before any output activation). All are averages over the batch, weighted if weights are given:
:math:`L = \sum_i w_i\,\ell_i / \sum_i w_i`. The output activation is folded into the loss, so
none takes the logarithm of a number that may have been rounded to zero.

`Through` puts an output activation of the user's choice before a loss of real values, and `Custom`
makes a loss of the user's own function.
"""

from __future__ import annotations

from mlp_xp.nn.losses._base import (
    ErrorLoss,
    Loss,
    LossPullback,
    RealValued,
    average,
    reported,
    shares,
)
from mlp_xp.nn.losses._classification import (
    CLASSIFICATION_LOSSES,
    BinaryCrossEntropy,
    BinaryFocal,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    one_hot,
    softmax,
)
from mlp_xp.nn.losses._outputs import (
    OUTPUTS,
    Custom,
    Through,
)
from mlp_xp.nn.losses._regression import (
    REGRESSION_LOSSES,
    AbsoluteError,
    Huber,
    Poisson,
    Quantile,
    SquaredError,
)

__all__ = [
    "CLASSIFICATION_LOSSES",
    "OUTPUTS",
    "REGRESSION_LOSSES",
    "AbsoluteError",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "Custom",
    "ErrorLoss",
    "Huber",
    "Loss",
    "LossPullback",
    "Poisson",
    "Quantile",
    "RealValued",
    "SoftmaxCrossEntropy",
    "SoftmaxFocal",
    "SquaredError",
    "Through",
    "average",
    "one_hot",
    "reported",
    "shares",
    "softmax",
]
