"""One training step: a pure function that a backend may compile.

A step computes the gradient, clips it, updates the parameters, and then updates the moving
averages. Parameters may have leading axes, for a stack of models trained together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.tree import map_leaves
from mlp_xp.augmentation import Augmentation
from mlp_xp.backends.kernels import Kernels, Scaling, Whitening
from mlp_xp.nn.entries import one_number
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network, Params
from mlp_xp.optimizers import Optimizer, init_opt_state
from mlp_xp.training.step.inputs import Batch, Selection
from mlp_xp.training.step.loss_scaling import (
    LossScale,
    accept_or_revert,
    copy_state,
    init_loss_scale,
    unscale_gradients,
)
from mlp_xp.training.step.value_and_gradient import BatchGradient, batch_gradient


class Steps(NamedTuple):
    """The arguments that change from step to step, with the steps as the first axis.

    ``selection`` is as in `Batch`; ``coefs : (steps, 4 + k)`` are packed `StepScalars`; ``keys :
    (steps, dropouts)`` or None. For a stack, the second axis is for the models.
    """

    selection: Selection
    coefs: Array
    keys: Array | None


class StepScalars(NamedTuple):
    """The scalars that change from step to step: 0-d arrays, or floats on the host.

    They are copied to the device as one array, ``(..., 4 + k)``, in this order. The models in a
    stack share the scalars, or each has its own. ``fraction`` is the step's fraction of the epoch's
    samples, and ``l2`` is the factor of the penalty. ``average_rate`` is the weight of new values
    in the moving average, and ``batch_stats_rate`` is their weight in the batch statistics.
    ``rule`` is the result of `Optimizer.coefficients`. ``dropout_rates`` contains the rate of each
    dropout layer if rates are inputs of a step.
    """

    fraction: Any
    l2: Any
    average_rate: Any
    batch_stats_rate: Any
    rule: tuple[Any, ...]
    dropout_rates: tuple[Any, ...] = ()

    @classmethod
    def unpack(cls, coefs: Any, n_dropouts: int = 0) -> StepScalars:
        """Unpack the scalars from an array."""
        axes: tuple[Any, ...] = () if coefs.ndim == 1 else (...,)
        numbers = [coefs[(*axes, i)] for i in range(coefs.shape[-1])]
        end = len(numbers) - n_dropouts
        return cls._make((*numbers[:4], tuple(numbers[4:end]), tuple(numbers[end:])))


class TrainState(NamedTuple):
    """The training state; it is donated to each step, which returns the next state.

    ``batch_stats`` are the running statistics of batch normalization. ``average`` is the moving
    average of the parameters, or an empty tuple. ``loss`` and ``accuracy``, 0-d or one per model in
    a stack, are sums over an epoch's steps, weighted by each step's fraction of the samples; they
    are read once per epoch. ``accuracy`` is an empty tuple unless requested. ``loss_scale`` is an
    empty tuple unless matrix products use float16.
    """

    params: Params
    opt_state: tuple[Params, ...]
    batch_stats: tuple[BatchStats, ...]
    average: Params
    loss: Array
    accuracy: Array | tuple[()]
    loss_scale: LossScale | tuple[()] = ()


class StepArguments(NamedTuple):
    """The arguments of one step; ``coefs`` are packed `StepScalars`."""

    batch: Batch
    scaling: Scaling | Whitening | None
    coefs: Array
    keys: Array | None


Step = Callable[
    [TrainState, Batch, "Scaling | Whitening | None", Array, "Array | None"], TrainState
]


def init_state(
    params: Params,
    optimizer: Optimizer,
    *,
    batch_stats: tuple[BatchStats, ...] = (),
    average: Params = (),
    with_accuracy: bool,
    with_loss_scale: bool = False,
    xp: Namespace,
) -> TrainState:
    """Return the initial state, which contains the arguments themselves, not copies."""
    zero = xp.zeros_like(one_number(params))
    accuracy = xp.zeros_like(zero) if with_accuracy else ()
    opt_state = init_opt_state(optimizer, params, xp=xp)
    loss_scale = init_loss_scale(zero, xp=xp) if with_loss_scale else ()
    return TrainState(params, opt_state, batch_stats, average, zero, accuracy, loss_scale)


def make_step(
    network: Network,
    loss: Loss,
    optimizer: Optimizer,
    kernels: Kernels,
    *,
    with_penalty: bool,
    max_grad_norm: float | None = None,
    augmentation: tuple[Augmentation, ...] = (),
    takes_dropout_rates: bool = False,
    make_gradient: Callable[..., Callable[..., BatchGradient]] = batch_gradient,
    xp: Namespace,
) -> Step:
    """Return the function for one training step.

    ``step(state, batch, scaling, coefs, keys)`` returns the next state; the old state becomes
    invalid. ``coefs : (..., 4 + k)`` are packed `StepScalars`, including dropout rates if a step
    takes them, and ``keys : (..., dropouts)`` are int32, or None. ``max_grad_norm`` limits the
    joint norm of all gradients of the loss. The penalty is not clipped, just as PyTorch does not
    clip weight decay. Geometric augmentations are applied first, in order, then all other
    augmentations. The models in a stack, whose parameters have leading axes, share scalars, batch
    and scaling, or each has its own.
    """
    gradient = make_gradient(network, loss, kernels, augmentation, xp=xp)
    n_rates = network.n_keys if takes_dropout_rates else 0

    def step(
        state: TrainState,
        batch: Batch,
        scaling: Scaling | Whitening | None,
        coefs: Array,
        keys: Array | None,
    ) -> TrainState:
        scalars = StepScalars.unpack(coefs, n_rates)
        params, opt_state, batch_stats, average, total, accuracy, scale = state
        with_accuracy = not isinstance(accuracy, tuple)
        n_leading = one_number(params).ndim  # The leading axes are for the models of a stack.
        former = copy_state(state[:4], scale, xp=xp)

        given = params, batch, scale, scaling, batch_stats, keys
        rates = scalars.dropout_rates
        found = gradient(*given, dropout_rates=rates, with_accuracy=with_accuracy)
        grads, value, correct, measured = found
        grads, is_finite = unscale_gradients(grads, scale, xp=xp)
        if max_grad_norm is not None:
            grads, _ = kernels.clip(grads, max_grad_norm, n_leading=n_leading, xp=xp)
        l2 = scalars.l2 if with_penalty else None
        params, opt_state, penalty = kernels.update(
            optimizer, params, grads, opt_state, scalars.rule, l2, n_leading=n_leading, xp=xp
        )
        if batch_stats:
            rate = scalars.batch_stats_rate
            batch_stats = kernels.average(batch_stats, measured, rate, xp=xp)
        if average:
            average = kernels.average(average, params, scalars.average_rate, xp=xp)
        total = kernels.accumulate(total, scalars.fraction, value, penalty)
        if with_accuracy:
            accuracy = kernels.accumulate(accuracy, scalars.fraction, correct)
        (params, opt_state, batch_stats, average), scale = accept_or_revert(
            (params, opt_state, batch_stats, average), former, scale, is_finite, xp=xp
        )
        return TrainState(params, opt_state, batch_stats, average, total, accuracy, scale)

    return step


@lru_cache(maxsize=64)
def make_indexed_step(step: Step) -> Callable[..., TrainState]:
    """Return a function for `Backend.loop` that runs one of several steps; cached by ``step``.

    ``indexed_step(i, state, steps, x, y, scaling)`` runs the step at position ``i`` in ``steps``, a
    0-d integer array or an int, and returns the next state.
    """

    def indexed_step(
        i: Array, state: TrainState, steps: Steps, x: Array, y: Array, scaling: Scaling | None
    ) -> TrainState:
        def of_step(leaf: Array | None) -> Array | None:
            return None if leaf is None else leaf[i, ...]

        selection, coefs, keys = map_leaves(of_step, steps)
        return step(state, Batch(x, y, selection), scaling, coefs, keys)

    return indexed_step
