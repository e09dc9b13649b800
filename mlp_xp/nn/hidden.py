"""Hidden layers as objects in `hidden_layer_sizes`, for networks other than plain ones.

An integer n is a dense layer with n outputs, followed by the normalization, activation and
dropout that are set in the estimator. The objects here build other networks, e.g. a residual
network with inverted bottlenecks, ``(Project(384), Branch((1536, 384)), Branch((1536, 384)))``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.blocks import (
    Activate,
    Affine,
    BatchNorm,
    Block,
    BlockAffine,
    Dropout,
    LayerNorm,
    ParametricActivate,
    Residual,
    Start,
)
from mlp_xp.nn.layers import Activation, Arrangement

Normalization = Literal["layer", "batch"]
Parametrization = Literal["standard", "ntk"]
_MOST_AXES = 31  # Array libraries may be limited to 32 axes, including the batch.


@dataclass(frozen=True)
class LayerContext:
    """The estimator's settings for the blocks after a dense layer: normalization, activation etc.

    ``keys`` numbers the network's dropouts, and ``batch_stats`` its batch normalizations.
    """

    activation: str | Activation
    dropout: float
    normalization: Normalization | None
    keys: Iterator[int]
    batch_stats: Iterator[int]
    parametric: bool = False
    parametrization: Parametrization = "standard"

    @property
    def start(self) -> Start:
        """The initialization of a dense layer, which depends on the activation."""
        if self.parametrization == "ntk":
            return "ntk"
        return "glorot-logistic" if self.activation == "logistic" else "glorot"

    def normalize(self, width: int) -> tuple[Block, ...]:
        """Return the normalization of ``width`` features, if one is set."""
        if self.normalization is None:
            return ()
        if self.normalization == "layer":
            return (LayerNorm(width),)
        return (BatchNorm(width, next(self.batch_stats)),)

    def activate(self, width: int) -> tuple[Block, ...]:
        """Return the activation, and dropout if it is set, for ``width`` features."""
        drop = (Dropout(self.dropout, next(self.keys)),) if self.dropout else ()
        if self.parametric:
            return (ParametricActivate(self.activation, width), *drop)
        return (Activate(self.activation), *drop)


class Layer:
    """The hashable base class for hidden layers, which build a block for a number of inputs."""

    @property
    def n_layers(self) -> int:
        """The number of dense layers."""
        return 1

    def outputs(self, fan_in: int) -> int:
        """Return the number of outputs; raise ValueError if the number of inputs is invalid."""
        raise NotImplementedError(f"{type(self).__name__} must define outputs to be a layer.")

    def build(self, fan_in: int, context: LayerContext) -> Block:
        """Return the block for this number of inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define build to be a layer.")

    def build_output(self, fan_in: int, fan_out: int, context: LayerContext) -> tuple[Block, ...]:
        """Return the blocks of an output layer that follows this layer."""
        return (Affine(fan_in, fan_out, context.start),)


@dataclass(frozen=True)
class Project(Layer):
    """A plain dense layer, without normalization and activation.

    Initial weights are uniform with a standard deviation of ``1 / sqrt(fan_in)``; biases are 0.

    Parameters
    ----------
    width : int of at least 1

    Examples
    --------
    >>> from mlp_xp.nn.hidden import Project
    >>> Project(384).outputs(3072)
    384
    """

    width: int

    def __post_init__(self) -> None:
        _check_width("width", self.width)

    def outputs(self, fan_in: int) -> int:
        """Return the width."""
        return self.width

    def build(self, fan_in: int, context: LayerContext, *, starts_at_zero: bool = False) -> Block:
        """Return the dense layer."""
        return Affine(fan_in, self.width, start="zero" if starts_at_zero else "lecun")


@dataclass(frozen=True)
class Blocks(Layer):
    """A plain block-diagonal dense layer, without normalization and activation.

    The features represent an array of ``shape``. A dense layer mixes the features along the mixed
    axes. Each position along the other axes has its own dense layer; no weights are shared. For
    example, if an image of shape (3, 32, 32) is cut into 8 x 8 squares of 4 x 4 pixels, the shape
    is (3, 8, 4, 8, 4), and mixing axes 0, 2 and 4 mixes the pixels in each square.

    Parameters
    ----------
    shape : tuple of int
    mixed : tuple of int
        The axes to mix, at least one.
    width : int of at least 1, optional
        The number of outputs per block. The outputs are the last axis of the output's shape: for
        the squares above, a width of 64 gives (8, 8, 64). By default, the output has the same shape
        as the input.

    References
    ----------
    See `mlp_xp.nn.layers.block_dense`.

    Examples
    --------
    >>> from mlp_xp.nn.hidden import Blocks
    >>> Blocks((3, 8, 4, 8, 4), mixed=(0, 2, 4), width=64).outputs(3072)
    4096
    >>> Blocks((64, 64), mixed=(0,)).outputs(4096)
    4096
    """

    shape: tuple[int, ...]
    mixed: tuple[int, ...]
    width: int | None = None

    def __post_init__(self) -> None:
        for name in ("shape", "mixed"):  # Lists are accepted but not hashable.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        n_axes = len(self.shape)
        if n_axes > _MOST_AXES:
            raise ValueError(f"`shape` must have at most {_MOST_AXES} axes, got {n_axes}.")
        for size in self.shape:
            _check_width("shape", size)
        if not self.mixed or sorted(set(self.mixed) & set(range(n_axes))) != sorted(self.mixed):
            raise ValueError(
                f"`mixed` must contain at least one of the axes 0 to {n_axes - 1} of shape "
                f"{self.shape!r}, each at most once, got {self.mixed!r}."
            )
        if self.width is not None:
            _check_width("width", self.width)

    @property
    def _arrangement(self) -> Arrangement:
        return Arrangement(self.shape, tuple(sorted(self.mixed)), self.width)

    def outputs(self, fan_in: int) -> int:
        """Return the total number of outputs of all blocks."""
        if math.prod(self.shape) != fan_in:
            raise ValueError(
                f"`shape` must have {fan_in} elements, one for each input of the block-diagonal "
                f"layer, got {self.shape!r} with {math.prod(self.shape)} elements."
            )
        return self._arrangement.blocks * self._arrangement.fan_out

    def build(self, fan_in: int, context: LayerContext, *, starts_at_zero: bool = False) -> Block:
        """Return the block-diagonal layer."""
        return BlockAffine(self._arrangement, "zero" if starts_at_zero else "lecun")


@dataclass(frozen=True)
class Branch(Layer):
    r"""A residual branch, :math:`x + f(x)`; initially :math:`f(x) = 0`.

    f consists of the estimator's normalization, if any, and the layers, with activation and dropout
    between the layers. The last layer is initialized with zeros, so a deep network is initially
    close to a shallow one.

    Parameters
    ----------
    layers : tuple of int, Project or Blocks
        An int is a `Project`. The last layer must have as many outputs as the first has inputs.

    References
    ----------
    He, Zhang, Ren, Sun, "Identity mappings in deep residual networks" (2016), arXiv:1603.05027;
    Bachmann, Anagnostidis, Hofmann, "Scaling MLPs: a tale of inductive bias" (2023),
    arXiv:2306.13575, for the inverted bottleneck ``Branch((4 * n, n))``.

    Examples
    --------
    >>> from mlp_xp.nn.hidden import Branch
    >>> Branch((1536, 384)).outputs(384)
    384
    """

    layers: tuple[int | Project | Blocks, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError("A Branch must have at least one layer, e.g. Branch((1536, 384)).")
        for layer in self.layers:
            if type(layer) is not int and not isinstance(layer, INNER):
                raise ValueError(
                    f"A Branch may contain integers, Project and Blocks, got {layer!r}; put one "
                    "Branch after another."
                )

    @property
    def _inner(self) -> list[Project | Blocks]:
        return [Project(layer) if isinstance(layer, int) else layer for layer in self.layers]

    def outputs(self, fan_in: int) -> int:
        """Return the number of inputs, since the branch's outputs are added to its inputs."""
        width = fan_in
        for layer in self._inner:
            width = layer.outputs(width)
        if width != fan_in:
            raise ValueError(
                f"{self!r} has {fan_in} inputs and {width} outputs: the last layer must have "
                f"{fan_in} outputs, because they are added to the inputs."
            )
        return fan_in

    @property
    def n_layers(self) -> int:
        """The number of layers in the branch."""
        return len(self.layers)

    def build_output(self, fan_in: int, fan_out: int, context: LayerContext) -> tuple[Block, ...]:
        """Return an output layer that normalizes its input, with initial weights of zero."""
        return (*context.normalize(fan_in), Affine(fan_in, fan_out, "zero"))

    def build(self, fan_in: int, context: LayerContext) -> Block:
        """Return the residual block."""
        built = [*context.normalize(fan_in)]
        width, inner = fan_in, self._inner
        for number, layer in enumerate(inner, start=1):
            is_last = number == len(inner)
            built.append(layer.build(width, context, starts_at_zero=is_last))
            width = layer.outputs(width)
            built += () if is_last else context.activate(width)
        return Residual(tuple(built))


INNER = (Project, Blocks)
LAYERS = (*INNER, Branch)


def _check_width(name: str, width: object) -> None:
    if type(width) is not int or width < 1:
        number = "integers" if name == "shape" else "an integer"
        raise ValueError(f"`{name}` must be {number} of at least 1, got {width!r}.")
