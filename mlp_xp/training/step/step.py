"""One training step: a pure function that a backend may compile.

A step reads as gradient (inputs, forward and loss, backward), clip, update, averages. Parameters
may have leading axes, for a stack of models that take their step together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp._utils.tree import map_leaves
from mlp_xp.augmentation import Augmentation
from mlp_xp.backends.kernels import Kernels, Scaling, Whitening
from mlp_xp.nn.blocks import DropoutKeys
from mlp_xp.nn.layers import BatchStats
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network, Params, one_number
from mlp_xp.optimizers import Optimizer, init_opt_state
from mlp_xp.training.step.inputs import Batch, Selection
from mlp_xp.training.step.loss_scaling import (
    LossScale,
    accept_or_revert,
    copy_state,
    init_loss_scale,
    unscale_gradients,
)
from mlp_xp.training.step.scalars import StepScalars
from mlp_xp.training.step.value_and_gradient import BatchGradient, batch_gradient

__all__ = [
    "Step",
    "StepArguments",
    "Steps",
    "TrainState",
    "init_state",
    "make_indexed_step",
    "make_step",
]


class Steps(NamedTuple):
    """The arguments of many steps that differ from step to step; their first axis counts steps.

    ``selection`` is that of a `Batch`, with rows; ``coefs : (steps, 4 + k)`` are packed
    `StepScalars`; ``keys : (steps, dropouts)`` or None. Those of a stack of models have an axis for
    the models after the first, and its keys may be `DropoutKeys`.
    """

    selection: Selection
    coefs: Array
    keys: Array | DropoutKeys | None


class TrainState(NamedTuple):
    """The state that a step turns into the next: everything here is donated to it.

    ``batch_stats`` are the running statistics of batch normalization, ``average`` is the moving
    average of the parameters, or an empty tuple. ``loss`` and ``accuracy``, 0-d or one for each
    model of a stack, are sums over the steps of an epoch, each step's average times the step's
    share of the samples: they are read once an epoch. ``accuracy`` is an empty tuple unless it is
    wanted, and ``loss_scale`` unless products are in float16.
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
    """Return the state before the first step; the arguments become part of it."""
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
    schedules_dropout: bool = False,
    make_gradient: Callable[..., Callable[..., BatchGradient]] = batch_gradient,
    xp: Namespace,
) -> Step:
    """Return the function of one training step.

    Parameters
    ----------
    network, loss, optimizer : frozen settings
    kernels : Kernels
    with_penalty : bool
        Whether there is an L2 penalty; without one, no work is spent on it.
    max_grad_norm : float, optional
        Clip the norm of all gradients of the loss together, for each model by itself. The penalty
        is not part of it, as weight decay is not in PyTorch.
    augmentation : tuple of Augmentation, default=()
        Applied to a batch with its draws: first the geometric ones, in their order, then the
        others.
    schedules_dropout : bool, default=False
        Whether a factor of the rates of dropout comes last of the numbers of a step.
    make_gradient : callable, default=batch_gradient
        Makes the function of the gradient of a batch.
    xp : namespace

    Returns
    -------
    callable
        ``step(state, batch, scaling, coefs, keys)`` returns the next state; the old one is dead.
        ``coefs : (..., 4 + k)`` are packed `StepScalars`, ``keys : (..., dropouts)`` int32, or
        None.

    Notes
    -----
    Parameters may have leading axes, ``W : (..., fan_in, fan_out)``. The models of such a stack
    share the scalars, or each has its own. They share the batch, or each has its own:
    ``x : (..., batch, features)``, or ``rows : (..., batch)`` of shared data, and likewise targets
    and weights. The same holds of the scaling: ``shift : (..., features)``.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.losses import SquaredError
    >>> from mlp_xp.nn.network import Network, init_params
    >>> from mlp_xp.optimizers import SGD
    >>> network, rule = Network((1, 1)), SGD(momentum=0.0)
    >>> step = make_step(network, SquaredError(), rule, Kernels(), with_penalty=False, xp=xp)
    >>> state = init_state(init_params(network, 0), rule, with_accuracy=False, xp=xp)
    >>> batch = Batch(xp.asarray([[1.0], [2.0]]), xp.asarray([[3.0], [5.0]]))
    >>> for _ in range(300):
    ...     state = step(state, batch, None, xp.asarray([1.0, 0.0, 0.0, 0.0, 0.3]), None)
    >>> xp.round(state.params[0].W, 3), xp.round(state.params[0].b, 3)
    (array([[2.]]), array([1.]))
    """
    gradient = make_gradient(network, loss, kernels, augmentation, xp=xp)

    def step(
        state: TrainState,
        batch: Batch,
        scaling: Scaling | Whitening | None,
        coefs: Array,
        keys: Array | None,
    ) -> TrainState:
        scalars = StepScalars.unpack(coefs)
        params, opt_state, batch_stats, average, total, accuracy, scale = state
        with_accuracy = not isinstance(accuracy, tuple)
        n_leading = one_number(params).ndim  # These count models.
        former = copy_state(state[:4], scale, xp=xp)

        share = coefs[..., -1] if schedules_dropout else None
        given = params, batch, scaling, batch_stats, keys, scale
        found = gradient(*given, dropout_share=share, with_accuracy=with_accuracy)
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
        total = kernels.accumulate(total, scalars.share, value, penalty)
        if with_accuracy:
            accuracy = kernels.accumulate(accuracy, scalars.share, correct)
        (params, opt_state, batch_stats, average), scale = accept_or_revert(
            (params, opt_state, batch_stats, average), former, scale, is_finite, xp=xp
        )
        return TrainState(params, opt_state, batch_stats, average, total, accuracy, scale)

    return step


@lru_cache(maxsize=64)
def make_indexed_step(step: Step) -> Callable[..., TrainState]:
    """Return the function of one of many steps, for `Backend.loop`; the same for the same step.

    Parameters
    ----------
    step : callable
        As `make_step` returns it.

    Returns
    -------
    callable
        ``indexed_step(i, state, steps, x, y, scaling)`` returns the state after the step at a
        position, a 0-d integer array or an int, in `Steps`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.training.step.inputs import Selection
    >>> from mlp_xp.training.step.step import Steps, make_indexed_step
    >>> add = lambda state, batch, scaling, coefs, keys: state + coefs * batch.selection.rows
    >>> indexed_step = make_indexed_step(add)
    >>> steps = Steps(Selection(xp.asarray([[1], [2]])), xp.asarray([10, 20]), None)
    >>> indexed_step(1, 0, steps, None, None, None)
    array([40])
    """

    def indexed_step(
        i: Array, state: TrainState, steps: Steps, x: Array, y: Array, scaling: Scaling | None
    ) -> TrainState:
        def pick(leaf: Array | None) -> Array | None:
            return None if leaf is None else leaf[i, ...]

        selection, coefs, keys = map_leaves(pick, steps)
        return step(state, Batch(x, y, selection), scaling, coefs, keys)

    return indexed_step
