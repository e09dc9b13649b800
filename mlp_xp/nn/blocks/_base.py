"""The base class of blocks, the context of a forward pass, and the chain of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp.compiler import derive
from mlp_xp.nn.layers import (
    ActivationPullback,
    BatchStats,
    LayerKernels,
    LayerPullback,
    Signs,
)

Measured = tuple[BatchStats, ...]


Make = Callable[..., Any]  # A function that creates an array, given the shape as its last argument.


# A block's output, its pullback, and the batch statistics from batch normalization.
Applied = tuple[Array, LayerPullback, Measured]


class Context(NamedTuple):
    """The settings and arrays of a forward pass.

    ``kernels`` compute the layers. ``batch_stats`` are the running statistics of each batch
    normalization. In training, batch normalization computes the statistics of the batch instead,
    weighted by ``weights : (..., batch)``. ``keys : (..., dropouts)`` are the int32 keys of
    dropout. The blocks define the dropout rates unless ``dropout_rates`` gives arrays with one rate
    per model.
    """

    xp: Namespace
    kernels: LayerKernels = LayerKernels()
    batch_stats: Measured = ()
    is_training: bool = False
    weights: Array | None = None
    keys: Array | None = None
    dropout_rates: tuple[Array, ...] = ()


class Row(NamedTuple):
    """A row of a network summary: a part's name, and its outputs, parameters and operations.

    ``work`` counts the multiplications and additions in the forward pass of one sample.
    """

    name: str
    output: int
    parameters: int
    work: int


class Block:
    """A part of a network, with hashable settings.

    A custom block defines `forward`, whose pullback is derived, or `__call__`, and also `init` if
    it has parameters. Parameters are a NamedTuple of arrays, such as `Dense` and `Norm`, or a tuple
    of NamedTuples. The attribute ``kinds`` of a NamedTuple names the kind of each array; see
    `mlp_xp.optimizers.kinds`. All other attributes of a block have defaults.
    """

    has_params: ClassVar[bool] = True
    takes_sparse: bool = False  # Whether the input may be sparse.
    is_dense: bool = False  # Whether the block is a single `Dense`.
    is_linear: bool = False  # Whether, in a prediction, the output is linear in x plus a constant.
    fan_out: int | None = None  # The number of outputs; None if it equals the number of inputs.
    work: int = 0  # The number of operations per sample; see `Row`.
    n_keys: int = 0  # The number of dropouts; each needs a key per step.
    dropout_rates: tuple[float, ...] = ()  # One dropout rate per key; see `Context`.
    batch_stats_widths: tuple[int, ...] = ()  # The width of each batch normalization.
    adapts: bool = False  # Whether the initial parameters depend on the data.

    def init(self, uniform: Make, constant: Make) -> Tree:
        """Draw the initial parameters; see `mlp_xp.nn.network.draw_params`."""
        return ()

    def adapt(self, params: Any, x: Any, uniform: Make, context: Context) -> Tree:
        """Return the initial parameters, given a sample of the inputs, (samples, inputs)."""
        return params

    def signs(self, inputs: Array, outputs: Array) -> list[Signs | None]:
        """Return the signs of each array of parameters in a monotone network; see `Signed`.

        None is for arrays that may have any values. ``inputs`` and ``outputs`` are the directions
        of the block's features.
        """
        raise NotImplementedError(f"{type(self).__name__} must define signs to be monotone.")

    def __call__(self, params: Any, x: Array, context: Context) -> Applied:
        """Return the output, the pullback, and the batch statistics.

        By default, the pullback is derived from `forward`.
        """
        # The formula's arrays have another namespace, which also replaces the backend's kernels.
        arrays = tuple(x for x in (context.weights, context.keys) if x is not None)

        def formula(params: Any, x: Array, arrays: tuple[Array, ...], *, xp: Namespace) -> Array:
            given = iter(arrays)
            weights, keys = (
                None if array is None else next(given) for array in (context.weights, context.keys)
            )
            inner = Context(xp, is_training=context.is_training, weights=weights, keys=keys)
            return self.forward(params, x, inner)

        y, pull = derive(
            formula,
            params,
            x,
            arrays,
            xp=context.xp,
            names=["params", "x", "context"],
            what=f"block {self!r}",
            n_differentiated=2,
            owner=self,
            key=(context.is_training, context.weights is None),
        )

        def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
            grads, *dx = pull(dy, 2 if need_dx else 1)
            return dx[0] if need_dx else None, grads

        return y, pullback, ()

    def forward(self, params: Any, x: Array, context: Context) -> Array:
        """Return the output, (..., batch, outputs), by functions of ``context.xp`` only."""
        raise NotImplementedError(
            f"{type(self).__name__} is a block, so it must define forward or __call__."
        )

    @property
    def label(self) -> str:
        """The block's name in a summary."""
        return type(self).__name__.lower()

    @property
    def n_parameters(self) -> int:
        """The number of learned parameters."""
        sizes: list[int] = []
        self.init(
            lambda low, high, shape: sizes.append(math.prod(shape)),
            lambda value, shape: sizes.append(math.prod(shape)),
        )
        return sum(sizes)

    def rows(self, width: int) -> tuple[Row, ...]:
        """Return the rows of a summary for ``width`` inputs."""
        return (Row(self.label, self.fan_out or width, self.n_parameters, self.work),)


def normal(uniform: Make, shape: tuple[int, ...], deviation: float = 1.0) -> Any:
    """Return normal random numbers, computed from uniform ones.

    If ``uniform`` returns a shape or a count instead of an array, return its result unchanged.
    """
    from scipy.special import ndtri  # `scipy.special` is slow to import.

    drawn = uniform(0.0, 1.0, shape)
    return deviation * ndtri(drawn) if hasattr(drawn, "dtype") else drawn


def without_params(pullback: ActivationPullback) -> LayerPullback:
    """Return the pullback of a block without parameters."""
    return lambda dy, *, need_dx: (pullback(dy) if need_dx else None, ())


def rows(blocks: tuple[Block, ...], width: int) -> list[Row]:
    """Return the rows of a summary of blocks for ``width`` inputs."""
    found: list[Row] = []
    for block in blocks:
        found += block.rows(found[-1].output if found else width)
    return found


def chain(blocks: tuple[Block, ...], params: Tree, x: Array, context: Context) -> Applied:
    """Run blocks in sequence, each with its parameters.

    If ``dx`` is not needed, the pullback stops at the first block that has parameters.
    """
    remaining = iter(params)
    pullbacks: list[tuple[LayerPullback, bool]] = []
    measured: Measured = ()
    n_params = 0
    of_dense = context
    if context.kernels.final_dense is not None:
        kernels = replace(context.kernels, dense=context.kernels.final_dense)
        of_dense = context._replace(kernels=kernels)
    for block in blocks:
        own = next(remaining) if block.has_params else ()
        x, pullback, batch_stats = block(own, x, of_dense if block.is_dense else context)
        # If an earlier block has parameters, it needs this block's dx.
        pullbacks.append((pullback, n_params > 0))
        n_params += block.has_params
        measured += batch_stats

    def pull(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
        grads = []
        dx: Array | None = dy
        for (pullback, is_needed), block in zip(reversed(pullbacks), reversed(blocks), strict=True):
            if dx is None:
                break
            dx, grad = pullback(dx, need_dx=need_dx or is_needed)
            if block.has_params:
                grads.append(grad)
        return dx, tuple(reversed(grads))

    return x, pull, measured


def adapt(blocks: tuple[Block, ...], params: Tree, x: Any, uniform: Make, context: Context) -> Tree:
    """Return the initial parameters of blocks, given a sample of their inputs."""
    remaining, adapted = iter(params), []
    for block in blocks:
        own: Any = next(remaining) if block.has_params else ()
        if block.adapts:
            own = block.adapt(own, x, uniform, context)
        if block.has_params:
            adapted.append(own)
        x = block(own, x, context)[0]
    return tuple(adapted)
