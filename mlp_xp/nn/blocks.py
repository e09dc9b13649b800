"""What a network is made of: frozen descriptions, each with its weights and its way forward.

A block is called with its parameters, its input and a `Context`, and returns its output, the
pullback, and the statistics that a batch normalization has measured. Everything that learns lies in
the parameters; a block without any has ``has_params`` False and takes ``()``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp.nn.layers import (
    Activation,
    ActivationPullback,
    Arrangement,
    BatchStats,
    Dense,
    Norm,
    activate,
    affine,
    apply_norm,
    batch_norm,
    dropout,
    layer_norm,
)

__all__ = [
    "Activate",
    "BatchNorm",
    "Block",
    "BlockLinear",
    "BlockPullback",
    "Context",
    "Dropout",
    "LayerNorm",
    "Linear",
    "Residual",
    "Start",
    "chain",
]

Measured = tuple[BatchStats, ...]
Make = Callable[..., Any]  # Makes an array, the shape last.


class BlockPullback(Protocol):
    """``dy`` to ``dx``, or None where it is not needed, and the gradients of the parameters."""

    def __call__(self, dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
        """Give the gradients with respect to the input and to the parameters."""
        ...


class Context(NamedTuple):
    """How a pass through the network is done.

    ``dense`` and ``activate`` do what `mlp_xp.nn.layers.affine` and `mlp_xp.nn.layers.activate` do;
    ``batch_stats`` are the running statistics, one for each batch normalisation. In training, batch
    normalisation measures its own, with the ``weights : (batch,)``, and ``keys :
    (..., dropouts)`` int32 choose what is dropped.
    """

    xp: Namespace
    dense: Callable[..., tuple[Array, Any]] = affine
    batch_stats: Measured = ()
    is_training: bool = False
    weights: Array | None = None
    keys: Array | None = None
    activate: Callable[..., tuple[Array, ActivationPullback]] = activate


class Block(Protocol):
    """A part of a network; hashable."""

    has_params: ClassVar[bool]

    def __hash__(self) -> int: ...

    def init(self, uniform: Make, constant: Make) -> Tree:
        """Draw the initial parameters; see `mlp_xp.nn.network.draw_params`."""
        ...

    def __call__(
        self, params: Tree, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """Give the output, the pullback, and what a batch normalisation has measured."""
        ...


def _without_params(pullback: ActivationPullback) -> BlockPullback:
    return lambda dy, *, need_dx: (pullback(dy) if need_dx else None, ())


# How weights start. "glorot": uniform in the range that Glorot and Bengio give, biases too, which
# is scikit-learn's choice, and "glorot-logistic" what it has for the logistic activation; "lecun":
# uniform with a standard deviation of 1 / sqrt(fan_in), biases at 0; "zero".
Start = Literal["glorot", "glorot-logistic", "lecun", "zero"]


def _bound(start: Start, fan_in: int, fan_out: int) -> float:
    if start == "zero":
        return 0.0
    if start == "lecun":
        return math.sqrt(3.0 / fan_in)
    return math.sqrt((2.0 if start == "glorot-logistic" else 6.0) / (fan_in + fan_out))


def _draw(
    uniform: Make, constant: Make, start: Start, shape: tuple[int, ...], n_outputs: int
) -> Dense:
    """Draw weights and biases; what starts at zero takes nothing from the generator."""
    bound = _bound(start, *shape[-2:])
    W = uniform(-bound, bound, shape) if bound else constant(0.0, shape)
    is_glorot = start.startswith("glorot")
    b = uniform(-bound, bound, (n_outputs,)) if is_glorot else constant(0.0, (n_outputs,))
    return Dense(W, b)


@dataclass(frozen=True)
class Linear:
    """A dense layer."""

    fan_in: int
    fan_out: int
    start: Start = "glorot"
    has_params: ClassVar[bool] = True

    def init(self, uniform: Make, constant: Make) -> Dense:
        """Draw weights and biases."""
        return _draw(uniform, constant, self.start, (self.fan_in, self.fan_out), self.fan_out)

    def __call__(
        self, params: Dense, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """See `mlp_xp.nn.layers.dense`."""
        return *context.dense(params, x, xp=context.xp), ()


@dataclass(frozen=True)
class BlockLinear:
    """A block-diagonal dense layer."""

    arrangement: Arrangement
    start: Start = "glorot"
    has_params: ClassVar[bool] = True

    @property
    def fan_out(self) -> int:
        """How many outputs all blocks have together."""
        return self.arrangement.blocks * self.arrangement.fan_out

    def init(self, uniform: Make, constant: Make) -> Dense:
        """Draw weights and biases."""
        arrangement = self.arrangement
        shape = arrangement.blocks, arrangement.fan_in, arrangement.fan_out
        return _draw(uniform, constant, self.start, shape, self.fan_out)

    def __call__(
        self, params: Dense, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """See `mlp_xp.nn.layers.block_dense`."""
        return *context.dense(params, x, self.arrangement, xp=context.xp), ()


@dataclass(frozen=True)
class Activate:
    """An activation: one of `mlp_xp.nn.layers.ACTIVATIONS`, or a function of the same contract."""

    function: str | Activation
    has_params: ClassVar[bool] = False

    def init(self, uniform: Make, constant: Make) -> Tree:
        """Draw nothing."""
        return ()

    def __call__(
        self, params: Tree, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """Apply it to each number."""
        y, pullback = context.activate(self.function, x, xp=context.xp)
        return y, _without_params(pullback), ()


@dataclass(frozen=True)
class Dropout:
    """In training, drops a share of what comes in; ``number`` is the position of its key."""

    rate: float
    number: int
    has_params: ClassVar[bool] = False

    def init(self, uniform: Make, constant: Make) -> Tree:
        """Draw nothing."""
        return ()

    def __call__(
        self, params: Tree, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """See `mlp_xp.nn.layers.dropout`."""
        if not context.is_training:
            return x, _without_params(lambda dy: dy), ()
        assert context.keys is not None
        keys = context.keys
        key = keys[self.number] if keys.ndim == 1 else keys[..., self.number]
        y, pullback = dropout(x, key, self.rate, xp=context.xp)
        return y, _without_params(pullback), ()


class _Normalization:
    """What the two normalisations share: a scale of 1 and a shift of 0 for each number."""

    width: int
    has_params: ClassVar[bool] = True

    def init(self, uniform: Make, constant: Make) -> Norm:
        """Start with a scale of 1 and a shift of 0, and leave the draws to the other blocks."""
        return Norm(constant(1.0, (self.width,)), constant(0.0, (self.width,)))


@dataclass(frozen=True)
class LayerNorm(_Normalization):
    """Layer normalisation: each sample by its own mean and variance."""

    width: int

    def __call__(
        self, params: Norm, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """See `mlp_xp.nn.layers.layer_norm`."""
        own = context.xp.astype(x, params.scale.dtype, copy=False)
        return *_as_given(x, *layer_norm(params, own, xp=context.xp), xp=context.xp), ()


@dataclass(frozen=True)
class BatchNorm(_Normalization):
    """Batch normalisation; ``number`` is the position of its running statistics."""

    width: int
    number: int

    def __call__(
        self, params: Norm, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """See `mlp_xp.nn.layers.batch_norm`."""
        xp = context.xp
        own = xp.astype(x, params.scale.dtype, copy=False)
        if not context.is_training:
            y = apply_norm(params, context.batch_stats[self.number], own, xp=xp)
            return xp.astype(y, x.dtype, copy=False), _no_way_back, ()
        y, pullback, batch_stats = batch_norm(params, own, context.weights, xp=xp)
        return *_as_given(x, y, pullback, xp=xp), (batch_stats,)


def _as_given(
    x: Array, y: Array, pullback: BlockPullback, *, xp: Namespace
) -> tuple[Array, BlockPullback]:
    """Cast what was normalized in the parameters' dtype to that of x."""
    own = y.dtype
    if own == x.dtype:
        return y, pullback

    def pull(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
        dx, grads = pullback(xp.astype(dy, own), need_dx=need_dx)
        return None if dx is None else xp.astype(dx, x.dtype), grads

    return xp.astype(y, x.dtype), pull


def _no_way_back(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
    raise RuntimeError("Batch normalisation with running statistics is for prediction only.")


@dataclass(frozen=True)
class Residual:
    """What the inner blocks give, added to what they were given: :math:`y = x + f(x)`.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition" (2016), arXiv:1512.03385.
    """

    blocks: tuple[Block, ...]
    has_params: ClassVar[bool] = True

    def init(self, uniform: Make, constant: Make) -> Tree:
        """Draw what the inner blocks need."""
        return tuple(block.init(uniform, constant) for block in self.blocks if block.has_params)

    def __call__(
        self, params: Tree, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """Run the inner blocks and add."""
        y, pull, measured = chain(self.blocks, params, x, context)

        def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
            dx, grads = pull(dy, need_dx=need_dx)
            return None if dx is None else dx + dy, grads

        return x + y, pullback, measured


def chain(
    blocks: tuple[Block, ...], params: Tree, x: Array, context: Context
) -> tuple[Array, BlockPullback, Measured]:
    """Run blocks one after the other.

    Parameters
    ----------
    blocks : tuple of Block
    params : tuple
        Those of the blocks that have any, in order; what is left over is not used.
    x : (batch, inputs)
    context : Context

    Returns
    -------
    y : (batch, outputs)
    pullback : callable
        ``pullback(dy, need_dx=...)`` gives ``(dx, grads)``. Nothing is computed for what lies
        before the first parameters unless ``dx`` is needed.
    measured : tuple of BatchStats

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.blocks import Activate, Linear, Context, chain
    >>> from mlp_xp.nn.layers import Dense
    >>> blocks = (Linear(2, 3), Activate("relu"))
    >>> params = (Dense(xp.ones((2, 3)), xp.zeros(3)),)
    >>> y, pullback, _ = chain(blocks, params, xp.ones((1, 2)), Context(xp))
    >>> y, pullback(y, need_dx=True)[0]
    (array([[2., 2., 2.]]), array([[6., 6.]]))
    """
    remaining = iter(params)
    pullbacks: list[tuple[BlockPullback, bool]] = []
    measured: Measured = ()
    n_params = 0
    for block in blocks:
        own = next(remaining) if block.has_params else ()
        x, pullback, batch_stats = block(own, x, context)
        # Whether something before this block has to know its dx.
        pullbacks.append((pullback, n_params > 0))
        n_params += block.has_params
        measured += batch_stats

    def pull(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
        grads = []
        dx: Array | None = dy
        for (pullback, before), block in zip(reversed(pullbacks), reversed(blocks), strict=True):
            if dx is None:
                break
            dx, grad = pullback(dx, need_dx=need_dx or before)
            if block.has_params:
                grads.append(grad)
        return dx, tuple(reversed(grads))

    return x, pull, measured
