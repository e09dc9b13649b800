"""One training step and one prediction, as pure functions that a backend may compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mlp_xp._typing import Array, DType, Namespace, Tree
from mlp_xp.layers import dense
from mlp_xp.losses import Loss, average
from mlp_xp.network import Network, Params, backward, forward
from mlp_xp.optimizers import Optimizer, init_slots, update_tree

__all__ = [
    "Batch",
    "Kernels",
    "Scaling",
    "Step",
    "TrainState",
    "gather",
    "init_state",
    "make_predict",
    "make_step",
]


class Scaling(NamedTuple):
    """What is done to each feature: ``(x - shift) * scale``, both ``(features,)``."""

    shift: Array
    scale: Array


class Batch(NamedTuple):
    """A batch: rows of a data set on the device, or the rows themselves.

    ``x : (samples, features)`` and ``y : (samples,)`` or ``(samples, outputs)``;
    ``rows : (batch,)`` integer positions in them, or None for all; ``weights : (batch,)``, or None
    where all are 1.
    """

    x: Array
    y: Array
    rows: Array | None
    weights: Array | None


def gather(
    x: Array, rows: Array | None, scaling: Scaling | None, *, dtype: DType, xp: Namespace
) -> Array:
    """Take rows of a data set, in the dtype of the products, scaled.

    Parameters
    ----------
    x : (samples, features)
        Of any real dtype, e.g. uint8; never written to.
    rows : (batch,) integers, or None for all
    scaling : Scaling of the given dtype, or None
    dtype : dtype
    xp : namespace

    Returns
    -------
    (batch, features) array

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.step import Scaling, gather
    >>> x = xp.asarray([[0], [2], [4]], dtype=xp.uint8)
    >>> scaling = Scaling(xp.asarray([2.0]), xp.asarray([0.5]))
    >>> gather(x, xp.asarray([2, 0]), scaling, dtype=xp.float64, xp=xp)
    array([[ 1.],
           [-1.]])
    """
    if rows is not None:
        x = xp.take(x, rows, axis=0)
    x = xp.astype(x, dtype, copy=False)
    if scaling is not None:
        x = x - scaling.shift
        x *= scaling.scale
    return x


class Kernels(NamedTuple):
    """The only door for speed: functions that a backend may replace by faster ones.

    Each has the signature and the meaning of its default here, and falls back to it for what it
    does not take.
    """

    dense: Callable[..., tuple[Array, Callable[..., tuple[Array | None, Tree]]]] = dense
    gather: Callable[..., Array] = gather
    update: Callable[..., tuple[Tree, tuple[Tree, ...], Array | float]] = update_tree


class TrainState(NamedTuple):
    """What a step turns into the next: everything here is donated to it.

    ``loss`` and ``accuracy`` are 0-d sums over the steps of an epoch, each step's average times the
    step's share of the samples, so that they are read once an epoch. ``accuracy`` is an empty
    tuple where it is not asked for.
    """

    params: Params
    slots: tuple[Params, ...]
    loss: Array
    accuracy: Array | tuple[()]


Step = Callable[[TrainState, Batch, Scaling | None, Array], TrainState]
Predict = Callable[[Params, Array, "Array | None", "Scaling | None"], Array]


def init_state(
    params: Params, optimizer: Optimizer, *, with_accuracy: bool, xp: Namespace
) -> TrainState:
    """Give the state before the first step; the parameters become part of it."""
    zero = xp.zeros_like(params[-1].b[0])
    accuracy = xp.zeros_like(zero) if with_accuracy else ()
    return TrainState(params, init_slots(optimizer, params, xp=xp), zero, accuracy)


def make_step(
    network: Network,
    loss: Loss,
    optimizer: Optimizer,
    kernels: Kernels,
    *,
    with_penalty: bool,
    xp: Namespace,
) -> Step:
    """Make the function that does one training step.

    Parameters
    ----------
    network, loss, optimizer : frozen settings
    kernels : Kernels
    with_penalty : bool
        Whether there is an L2 penalty; without one, no work is spent on it.
    xp : namespace

    Returns
    -------
    callable
        ``step(state, batch, scaling, coefs)`` gives the next state; the old one is dead.
        ``coefs : (2 + k,)`` holds the step's share of the epoch's samples, the factor of the
        penalty, and the k numbers of `optimizer.coefficients`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.losses import SquaredError
    >>> from mlp_xp.network import Network, init_params
    >>> from mlp_xp.optimizers import SGD
    >>> network, rule = Network((1, 1)), SGD(momentum=0.0)
    >>> step = make_step(network, SquaredError(), rule, Kernels(), with_penalty=False, xp=xp)
    >>> state = init_state(init_params(network, 0), rule, with_accuracy=False, xp=xp)
    >>> batch = Batch(xp.asarray([[1.0], [2.0]]), xp.asarray([[3.0], [5.0]]), None, None)
    >>> for _ in range(300):
    ...     state = step(state, batch, None, xp.asarray([1.0, 0.0, 0.3]))
    >>> xp.round(state.params[0].W, 3), xp.round(state.params[0].b, 3)
    (array([[2.]]), array([1.]))
    """

    def step(state: TrainState, batch: Batch, scaling: Scaling | None, coefs: Array) -> TrainState:
        share, l2 = coefs[0], coefs[1] if with_penalty else None
        rule_coefs = tuple(coefs[i] for i in range(2, coefs.shape[0]))
        dtype = state.params[0].W.dtype
        x = kernels.gather(batch.x, batch.rows, scaling, dtype=dtype, xp=xp)
        targets = batch.y if batch.rows is None else xp.take(batch.y, batch.rows, axis=0)

        logits, pullbacks = forward(network, state.params, x, layer=kernels.dense, xp=xp)
        value, pullback = loss(logits, targets, batch.weights, xp=xp)
        accuracy = state.accuracy
        if not isinstance(accuracy, tuple):
            hits = loss.hits(logits, targets, xp=xp)
            accuracy = accuracy + share * average(hits, batch.weights, xp=xp)
        grads = backward(pullbacks, pullback())

        params, slots, penalty = kernels.update(
            optimizer, state.params, grads, state.slots, rule_coefs, l2, xp=xp
        )
        return TrainState(params, slots, state.loss + share * (value + penalty), accuracy)

    return step


def make_predict(network: Network, loss: Loss, kernels: Kernels, *, xp: Namespace) -> Predict:
    """Make the function that predicts for a batch.

    Parameters
    ----------
    network, loss : frozen settings
        The loss gives the output activation.
    kernels : Kernels
    xp : namespace

    Returns
    -------
    callable
        ``predict(params, x, rows, scaling)`` gives ``(batch, outputs)``: probabilities, or values.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.losses import SoftmaxCrossEntropy
    >>> from mlp_xp.network import Network, init_params
    >>> network = Network((4, 3, 2))
    >>> predict = make_predict(network, SoftmaxCrossEntropy(), Kernels(), xp=xp)
    >>> predict(init_params(network, 0), xp.ones((5, 4)), None, None).shape
    (5, 2)
    """

    def predict(params: Params, x: Array, rows: Array | None, scaling: Scaling | None) -> Array:
        x = kernels.gather(x, rows, scaling, dtype=params[0].W.dtype, xp=xp)
        logits, _ = forward(network, params, x, layer=kernels.dense, xp=xp)
        return loss.activate(logits, xp=xp)

    return predict
