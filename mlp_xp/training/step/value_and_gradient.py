"""The loss of a batch and its gradient: inputs, forward pass, loss and backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.augmentation import Augmentation
from mlp_xp.backends.kernels import Kernels, Scaling, Whitening
from mlp_xp.nn.blocks import Context
from mlp_xp.nn.layers import BatchStats, LayerPullback
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network, Params, forward
from mlp_xp.training.step.inputs import (
    Batch,
    in_dtype_of,
    mixed,
    network_inputs,
    targets_and_weights,
)
from mlp_xp.training.step.loss_scaling import LossScale, scale_loss_gradient


class Evaluation(NamedTuple):
    """The loss of a batch, its inputs, and functions for its gradients.

    ``x : (..., batch, features)`` are the network's inputs and ``logits : (..., batch, outputs)``
    its outputs; ``targets`` are encoded for the loss. ``loss : (...)`` is the weighted average, and
    ``pull_loss()`` returns its gradient with respect to the logits; ``pullback(dlogits,
    need_dx=...)`` returns the gradients with respect to ``x`` and to all parameters. ``correct :
    (...)``, the average accuracy, is an empty tuple unless requested, and ``batch_stats`` contains
    this batch's statistics for each batch normalization. The blocks ran with ``context``.
    """

    x: Array
    targets: Array
    logits: Array
    loss: Array
    correct: Array | tuple[()]
    pull_loss: Callable[[], Array]
    pullback: LayerPullback
    batch_stats: tuple[BatchStats, ...]
    context: Context

    def backward(self, dlogits: Array) -> Params:
        """Return the gradients with respect to all parameters."""
        return self.pullback(dlogits, need_dx=False)[1]


class BatchGradient(NamedTuple):
    """The gradients with respect to all parameters, and the loss, accuracy and statistics.

    ``loss``, as reported, and ``correct`` are averages, as in `Evaluation`.
    """

    grads: Params
    loss: Array
    correct: Array | tuple[()]
    batch_stats: tuple[BatchStats, ...]


def value_and_gradient(
    network: Network,
    loss: Loss,
    kernels: Kernels,
    augmentation: tuple[Augmentation, ...] = (),
    *,
    xp: Namespace,
) -> Callable[..., Evaluation]:
    """Return the function that evaluates a batch.

    ``evaluate(params, batch, scaling, batch_stats=(), keys=None, *, is_training=True,
    dropout_rates=(), with_accuracy=False)`` returns an `Evaluation`.
    """

    def evaluate(
        params: Params,
        batch: Batch,
        scaling: Scaling | Whitening | None,
        batch_stats: tuple[BatchStats, ...] = (),
        keys: Any = None,
        *,
        is_training: bool = True,
        dropout_rates: tuple[Array, ...] = (),
        with_accuracy: bool = False,
    ) -> Evaluation:
        x, targets, mixture = network_inputs(params, batch, scaling, kernels, augmentation, xp=xp)
        context = Context(
            xp,
            kernels,
            batch_stats=batch_stats,
            is_training=is_training,
            weights=batch.selection.weights,
            keys=keys,
            dropout_rates=dropout_rates,
        )
        logits, pullback, measured = forward(network, params, x, context, xp=xp)
        logits = in_dtype_of(params, logits, xp=xp)

        pairs = targets_and_weights(targets, batch.selection.weights, mixture, xp=xp)
        losses = [kernels.loss(loss, logits, y, w, xp=xp) for y, w in pairs]
        value = mixed([value for value, _ in losses], mixture)
        correct: Array | tuple[()] = ()
        if with_accuracy:
            hits = [kernels.accuracy(loss, logits, y, w, xp=xp) for y, w in pairs]
            correct = mixed(hits, mixture)

        def pull_loss() -> Array:
            return mixed([pull() for _, pull in losses], mixture)

        results = value, correct, pull_loss, pullback, measured, context
        return Evaluation(x, targets, logits, *results)

    return evaluate


def batch_gradient(
    network: Network,
    loss: Loss,
    kernels: Kernels,
    augmentation: tuple[Augmentation, ...] = (),
    *,
    xp: Namespace,
) -> Callable[..., BatchGradient]:
    """Return the function that computes a batch's gradient, multiplied by the loss scale, if any.

    In ``gradient(params, batch, scale, *given)``, ``given`` are further arguments of ``evaluate``;
    see `value_and_gradient`.
    """
    evaluate = value_and_gradient(network, loss, kernels, augmentation, xp=xp)

    def gradient(
        params: Params, batch: Batch, scale: LossScale | tuple[()], *given: Any, **options: Any
    ) -> BatchGradient:
        found = evaluate(params, batch, *given, **options)
        value = loss.reported(found.loss, found.logits.shape[-1])
        grads = found.backward(scale_loss_gradient(found.pull_loss(), scale, xp=xp))
        return BatchGradient(grads, value, found.correct, found.batch_stats)

    return gradient
