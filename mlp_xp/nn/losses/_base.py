"""The base class for losses, and weighted averages of losses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from mlp_xp._utils.array_types import Array, DType, Namespace
from mlp_xp.compiler import derive
from mlp_xp.nn.layers import shares

LossPullback = Callable[[Any], Array]
# Terms that add up to each sample's loss, and their pullback.
Terms = tuple[Array, Callable[[Array | float], Array]]


class Loss(ABC):
    """A loss per sample, with its gradient: a frozen object whose fields are the settings.

    A subclass implements `activate`, and either `losses`, whose gradient is derived, or `terms`.
    The other defaults suit real-valued targets. `mean_loss` applies weights and averages. All
    arrays may have leading axes, ``...``, e.g. for a stack of models.

    Attributes
    ----------
    output : str
        The name of the output activation.
    is_mean_of_outputs : bool
        Whether estimators report the mean over the outputs, as in scikit-learn, although the loss
        is the sum over the outputs.
    is_own : bool
        Whether the formula is user-defined. If so, a fit checks it before its first step. True for
        classes that define `losses`.
    outputs_per_target : int
        The number of network outputs per target. The outputs are ordered by kind, e.g. the means of
        all targets, then the variances of all targets.
    levels : tuple of float
        The quantiles that the loss estimates, if any.
    has_std : bool
        Whether predictions have a standard deviation.
    """

    output: str
    is_mean_of_outputs: ClassVar[bool] = False
    is_own: ClassVar[bool] = False
    outputs_per_target: ClassVar[int] = 1
    levels: ClassVar[tuple[float, ...]] = ()
    has_std: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "losses" in vars(cls):
            cls.is_own = True

    @property
    def takes_standardized(self) -> bool:
        """Whether targets may be standardized, because outputs may have any sign and size."""
        return self.output in ("identity", "quantiles", "gaussian")

    def losses(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Return the loss of each sample, (..., batch); see `terms` for the arguments.

        `terms` derives the gradient of this method, so it uses only the Array API and does not
        branch on values.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define losses or terms to be a loss."
        )

    def terms(self, logits: Array, targets: Array, *, xp: Namespace) -> Terms:
        """Return terms, (..., batch, n), that add up to each sample's loss, and the pullback.

        Never write to ``logits : (..., batch, outputs)`` or ``targets``. Targets are integer
        labels, (..., batch), or numbers in the logits' dtype, (..., batch, outputs).
        ``pullback(dloss)`` returns ``dlogits``; ``dloss`` is the derivative with respect to each
        sample's loss, (..., batch, 1), or one number for all samples.
        """
        losses, pullback = derive(
            self.losses,
            logits,
            targets,
            xp=xp,
            names=["logits", "targets"],
            what=f"loss {self!r}",
            n_differentiated=1,
            owner=self,
        )
        return losses[..., None], lambda dloss: pullback(
            (xp.ones_like(losses)[..., None] * dloss)[..., 0]
        )[0]

    @abstractmethod
    def activate(self, logits: Array, *, xp: Namespace) -> Array:
        """Return the activated outputs (probabilities or values), (..., batch, outputs)."""

    def __call__(
        self, logits: Array, targets: Array, *, xp: Namespace
    ) -> tuple[Array, LossPullback]:
        """Return the loss of each sample, (..., batch), and the pullback; see `terms`.

        ``pullback(dlosses)``, with ``dlosses : (..., batch)``, returns the gradient with respect to
        the logits.
        """
        terms, pullback = self.terms(logits, targets, xp=xp)
        return xp.sum(terms, axis=-1), lambda dlosses: pullback(dlosses[..., None])

    def is_correct(self, logits: Array, targets: Array, *, xp: Namespace) -> Array:
        """Return 1 for each sample whose predicted class is correct, else 0; (..., batch)."""
        raise TypeError(
            f"{type(self).__name__} has no accuracy; use SoftmaxCrossEntropy for classes."
        )

    def check_targets(  # noqa: B027 - any real values will do.
        self, targets: Array, name: str = "y", *, xp: Namespace
    ) -> None:
        """Raise ValueError if real-valued targets, (batch,) or (batch, outputs), are invalid."""

    def initial_biases(
        self, targets: Array, weights: Array | None = None, *, xp: Namespace
    ) -> Array | None:
        """Return the initial biases of the output layer, (outputs,), or None for random biases.

        ``targets : (samples, targets)`` are real-valued; ``weights : (samples,)`` have the same
        dtype as ``targets``.
        """
        return None

    def point(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the prediction for each target, (..., batch, targets), given activated outputs."""
        return outputs

    def centers(self, outputs: Array, *, xp: Namespace) -> tuple[Array, Array | float]:
        """Return predicted values to subtract from targets, and the expected size of these errors.

        Values have shape (..., batch, targets, kinds), e.g. one kind per quantile. The expected
        size broadcasts with the values.
        """
        return self.point(outputs, xp=xp)[..., None], 1.0

    def std(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return the predicted standard deviation of each target, (..., batch, targets)."""
        raise ValueError(
            f"The network was fitted with loss={self!r}, which has no standard deviation: fit with "
            "loss=Gaussian(), or predict with an MLPEnsembleRegressor."
        )

    def quantiles(self, outputs: Array, levels: Sequence[float], *, xp: Namespace) -> Array:
        """Compute quantiles of each target, (..., batch, targets, levels), from the outputs."""
        raise ValueError(
            f"The network was fitted with loss={self!r}, which has no quantiles: fit with "
            f"loss=Quantile({tuple(levels)}) or Gaussian(), or call "
            "MLPRegressor.calibrate_intervals(X, y) with held-out samples."
        )

    def units(self, mean: Array, deviation: Array, *, xp: Namespace) -> tuple[Array, Array]:
        """Return the factor and the offset, (outputs,), that undo the standardization of targets.

        The factor and the offset convert activated outputs to the unit of the targets. ``mean`` and
        ``deviation``, (targets,), are the targets' mean and standard deviation.
        """
        n = self.outputs_per_target
        return xp.concat([deviation] * n), xp.concat([mean] * n)

    def raw_outputs(self, outputs: Array, *, xp: Namespace) -> Array:
        """Return raw outputs, (..., batch, outputs), for which `activate` returns ``outputs``."""
        return invert(self.output, outputs, xp=xp)

    def reported(self, value: Any, n_outputs: int) -> Any:
        """Return an average loss in the form that estimators report."""
        return value / n_outputs if self.is_mean_of_outputs and n_outputs > 1 else value

    def _parts(self, array: Array, n_parts: int = 0) -> list[Array]:
        """Split an array, (..., outputs), into the columns of each kind of output."""
        n_parts = n_parts or self.outputs_per_target
        if n_parts == 1:
            return [array]
        width = array.shape[-1] // n_parts
        return [array[..., k * width : (k + 1) * width] for k in range(n_parts)]


def mean_loss(
    loss: Loss, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
) -> tuple[Array, Callable[[], Array]]:
    r"""Compute the weighted average of a loss over a batch, and the pullback to the logits.

    :math:`L = \sum_i w_i\,\ell_i / \sum_i w_i`. Samples of weight 0, used as padding, have no
    effect. If all weights are 0, the average and its gradient are 0.
    """
    terms, pullback = loss.terms(logits, targets, xp=xp)
    weight = shares(weights, logits.shape[-2], xp=xp)
    return xp.sum(terms * weight, axis=(-2, -1)), lambda: pullback(weight)


def average(values: Array, weights: Array | None, *, xp: Namespace) -> Array:
    """Return the weighted average of values, (..., batch), over the batch."""
    weight = shares(weights, values.shape[-1], xp=xp)
    return xp.sum(values[..., None] * weight, axis=(-2, -1))


def mean_accuracy(
    loss: Loss, logits: Array, targets: Array, weights: Array | None = None, *, xp: Namespace
) -> Array:
    """Return the weighted fraction of samples whose predicted class is correct, (...)."""
    return average(loss.is_correct(logits, targets, xp=xp), weights, xp=xp)


def mean_and_std(targets: Array, weights: Array | None, *, xp: Namespace) -> tuple[Array, Array]:
    """Return the weighted mean and standard deviation of each target, (targets,).

    For a constant target, the returned standard deviation is 1.
    """
    weight = shares(weights, targets.shape[0], xp=xp)
    mean = xp.sum(targets * weight, axis=0)
    std = xp.sqrt(xp.sum((targets - mean) ** 2 * weight, axis=0))
    # The deviation of a constant may be above 0, since the mean is rounded.
    is_constant = xp.all(targets == targets[:1, ...], axis=0) | (std == 0.0)
    return mean, xp.where(is_constant, xp.ones_like(std), std)


def normal_scores(levels: Sequence[float]) -> list[float]:
    """Return quantiles of the standard normal distribution."""
    from statistics import NormalDist  # Import this only when needed.

    return [NormalDist().inv_cdf(level) for level in levels]


def log_bounds(dtype: DType, *, xp: Namespace) -> tuple[float, float]:
    """Return the logarithms of eps and 1 - eps, between which scikit-learn clips probabilities."""
    eps = float(xp.finfo(dtype).eps)
    return math.log(eps), math.log1p(-eps)


def invert(activation: str, y: Array, *, xp: Namespace) -> Array:
    """Return raw outputs for which an output activation returns ``y``."""
    tiny = float(xp.finfo(y.dtype).smallest_normal)
    if activation in ("softmax", "exp"):
        return xp.log(xp.maximum(y, tiny))
    if activation == "logistic":
        return xp.log(xp.maximum(y, tiny)) - xp.log(xp.maximum(1.0 - y, tiny))
    if activation == "softplus":
        return y + xp.log(xp.maximum(-xp.expm1(-y), tiny))
    if activation == "tanh":
        return 0.5 * (xp.log(xp.maximum(1.0 + y, tiny)) - xp.log(xp.maximum(1.0 - y, tiny)))
    if activation not in ("identity", "relu"):
        raise ValueError(f"The output activation {activation!r} has no inverse here: add it.")
    return y  # For "relu", ``y`` must be at least 0.
