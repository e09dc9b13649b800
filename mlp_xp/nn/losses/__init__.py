r"""Losses of the network's raw outputs; each loss and its gradient are in one small file.

A loss returns the loss of each sample and a pullback. The pullback converts the derivative with
respect to the samples' losses to the gradient with respect to the raw outputs (the *logits*, before
any output activation). Weights and averages are applied in one place, `mean_loss`. The loss
includes the output activation, so no loss computes the logarithm of a number that may have been
rounded to zero.

To add a loss, add a file, and a line below. Exports to ONNX and C trace its `activate`, so it needs
no code there. The L2 penalty is part of the update, not a loss (`mlp_xp.optimizers`).
"""

from __future__ import annotations

from mlp_xp.nn.layers import shares
from mlp_xp.nn.losses._base import Loss, LossPullback, average, invert, mean_accuracy, mean_loss
from mlp_xp.nn.losses._binary import BinaryCrossEntropy
from mlp_xp.nn.losses._custom import Custom
from mlp_xp.nn.losses._each_member import EachMember
from mlp_xp.nn.losses._each_target import EachTarget
from mlp_xp.nn.losses._errors import AbsoluteError, ErrorLoss, Huber, Quantile, SquaredError
from mlp_xp.nn.losses._focal import BinaryFocal, SoftmaxFocal
from mlp_xp.nn.losses._likelihoods import Gaussian, Poisson, of_mixture, weigh
from mlp_xp.nn.losses._softmax import SoftmaxCrossEntropy, one_hot, softmax
from mlp_xp.nn.losses._through import OUTPUTS, Through

__all__ = [
    "CLASSIFICATION_LOSSES",
    "OUTPUTS",
    "REGRESSION_LOSSES",
    "AbsoluteError",
    "BinaryCrossEntropy",
    "BinaryFocal",
    "Custom",
    "EachMember",
    "EachTarget",
    "ErrorLoss",
    "Gaussian",
    "Huber",
    "Loss",
    "LossPullback",
    "Poisson",
    "Quantile",
    "SoftmaxCrossEntropy",
    "SoftmaxFocal",
    "SquaredError",
    "Through",
    "mean_loss",
]

REGRESSION_LOSSES: dict[str, type[Loss]] = {
    "squared_error": SquaredError,
    "absolute_error": AbsoluteError,
    "huber": Huber,
    "quantile": Quantile,
    "poisson": Poisson,
    "gaussian": Gaussian,
}

# For each name: the loss for mutually exclusive classes, and the loss for independent binary
# outputs.
CLASSIFICATION_LOSSES: dict[str, tuple[type[Loss], type[Loss]]] = {
    "log_loss": (SoftmaxCrossEntropy, BinaryCrossEntropy),
    "focal": (SoftmaxFocal, BinaryFocal),
}
