"""The network: its settings, its initial weights, and its forward and backward pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import count, takewhile
from typing import Any, get_args

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.random import RandomState, constant, host_generator
from mlp_xp._utils.signals.forks import cached_property
from mlp_xp.nn.blocks import (
    Affine,
    Block,
    Context,
    Dropout,
    Measured,
    MemberHeads,
    Residual,
    SharedAffine,
    Signed,
    TableInputs,
    adapt,
    chain,
    check_members,
    check_monotone,
    hidden_directions,
)
from mlp_xp.nn.hidden import Layer, LayerContext, Normalization, Parametrization
from mlp_xp.nn.layers import ACTIVATIONS, Activation, BatchStats, Directions, LayerPullback

Params = Tree


@dataclass(frozen=True)
class Network:
    """A multilayer perceptron.

    ``widths`` are the number of inputs, the width of each hidden layer, and the number of outputs;
    a hidden layer may also be an object of `mlp_xp.nn.hidden`. A hidden layer is a dense layer,
    followed by normalization, activation and dropout if set. The output layer is a dense layer
    without an activation, because losses use raw outputs; after a `Branch`, the output layer
    normalizes its input and starts at zero. Tuples of activations and dropouts have one entry per
    hidden layer. If ``residual`` is true, a layer's input is added to its output if both have the
    same width. ``inputs`` is a block before the first layer; ``widths`` then begins with the
    block's number of columns. If ``n_members`` networks share hidden weights, ``widths`` ends with
    the total number of their outputs.
    """

    widths: tuple[Any, ...]  # Integers, or `Layer` objects for hidden layers.
    activation: str | Activation | tuple[str | Activation, ...] = "relu"
    normalization: Normalization | None = None
    dropout: float | tuple[float, ...] = 0.0
    input_dropout: float = 0.0
    residual: bool = False
    inputs: TableInputs | None = None
    parametric_activation: bool = False
    parametrization: Parametrization = "standard"
    n_members: int = 1

    def __post_init__(self) -> None:
        numbers = [width for width in self.widths if isinstance(width, int)]
        ends = (*self.widths[:1], *self.widths[-1:])
        if len(self.widths) < 2 or not all(isinstance(n, int) for n in ends) or min(numbers) < 1:
            raise ValueError(
                "`widths` must be the widths, at least 1, of inputs, hidden layers and outputs, "
                f"e.g. (3072, 512, 10), got {self.widths!r}."
            )
        for activation in self._given("activation"):
            if not callable(activation) and activation not in ACTIVATIONS:
                raise ValueError(
                    f"`activation` must be one of {sorted(ACTIVATIONS)}, or a function with the "
                    f"same signature, got {activation!r}."
                )
        for name in ("dropout", "input_dropout"):
            for rate in self._given(name):
                if not 0.0 <= rate < 1.0:
                    raise ValueError(f"`{name}` must be at least 0 and below 1, got {rate!r}.")
        if self.normalization not in (None, *get_args(Normalization)):
            raise ValueError(
                f"`normalization` must be 'layer', 'batch' or None, got {self.normalization!r}."
            )
        self._one_for_each_layer("activation")
        self._one_for_each_layer("dropout")
        check_members(self.n_members, self.widths, self.normalization, self.parametrization)
        if self.is_monotone:
            check_monotone(self)
        self.sizes  # noqa: B018 - each layer checks its number of inputs.

    def __getstate__(self) -> dict[str, Any]:
        """Return only the settings, from which everything else is derived."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _given(self, name: str) -> tuple:  # type: ignore[type-arg]
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,)

    def _one_for_each_layer(self, name: str) -> tuple:  # type: ignore[type-arg]
        """Return one setting per hidden layer."""
        value = getattr(self, name)
        n_hidden = len(self.widths) - 2
        if not isinstance(value, tuple):
            return (value,) * n_hidden
        if len(value) != n_hidden:
            raise ValueError(
                f"`{name}` must be a single value or have one entry for each of the {n_hidden} "
                f"hidden layers, got {value!r}."
            )
        return value

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of input columns, and the number of outputs of each layer."""
        sizes: list[int] = []
        for width in self.widths:
            is_number = isinstance(width, int)
            sizes.append(width if is_number else width.outputs(self._fan_in(sizes)))
        return tuple(sizes)

    def _fan_in(self, sizes: Sequence[int]) -> int:
        """Return the number of inputs of the next layer, given the sizes so far."""
        if self.inputs is not None and len(sizes) == 1:
            return self.inputs.fan_out
        return sizes[-1]

    @property
    def is_monotone(self) -> bool:
        """Whether the outputs are monotone in some of the inputs."""
        return self.inputs is not None and any(self.inputs.directions)

    @cached_property
    def directions(self) -> tuple[Directions, ...]:
        """The directions of each layer's inputs, and of the outputs, in a monotone network.

        See `mlp_xp.nn.blocks.Signed`.
        """
        assert self.inputs is not None
        inputs = self.inputs.output_directions
        hidden = (hidden_directions(width, inputs) for width in self.sizes[1:-1])
        return inputs, *hidden, (1,) * self.sizes[-1]

    @cached_property
    def blocks(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of each layer; the output layer is last."""
        keys, stats = count(), count()
        built: list[tuple[Block, ...]] = []
        rates, activations = map(self._one_for_each_layer, ("dropout", "activation"))
        common = keys, stats, self.parametric_activation, self.parametrization
        context = LayerContext("", 0.0, None, *common)
        for i, fan_out in enumerate(self.sizes[1:]):
            fan_in = self._fan_in(self.sizes[: i + 1])
            input_blocks: tuple[Any, ...] = self._table if i == 0 else ()
            if i == 0 and self.input_dropout:
                input_blocks += (Dropout(self.input_dropout, next(keys)),)
            if i < len(activations):
                context = LayerContext(activations[i], rates[i], self.normalization, *common)
                layer = self._hidden(i, fan_in, context)
            elif isinstance(self.widths[i], Layer):
                layer = self.widths[i].build_output(fan_in, fan_out, context)
            elif self.n_members > 1:
                heads = MemberHeads(self.n_members, fan_in, fan_out, context.start)
                layer = self._signed((heads,), i)
            else:
                layer = self._signed((Affine(fan_in, fan_out, context.start),), i)
            built.append((*input_blocks, *layer))
        return tuple(built)

    @property
    def _table(self) -> tuple[Block, ...]:
        """The block before the first layer, if it changes the inputs."""
        inputs = self.inputs
        if inputs is None or not inputs.has_params:
            return ()
        if not self.is_monotone:
            return (inputs,)
        return (Signed(inputs, inputs.input_directions, inputs.output_directions),)

    def _signed(self, blocks: tuple[Block, ...], i: int) -> tuple[Block, ...]:
        """Return the blocks of layer i with the signs that make the network monotone, if it is."""
        if not self.is_monotone:
            return blocks
        first, *others = blocks
        inputs, outputs = self.directions[i : i + 2]
        normal = (Signed(b, outputs, outputs) if b.has_params else b for b in others)
        return Signed(first, inputs, outputs), *normal

    def _hidden(self, i: int, fan_in: int, context: LayerContext) -> tuple[Block, ...]:
        layer: int | Layer = self.widths[i + 1]
        if isinstance(layer, Layer):
            return (layer.build(fan_in, context),)
        affine: Block = Affine(fan_in, layer, context.start)
        if self.n_members > 1:
            affine = SharedAffine(self.n_members, i == 0, fan_in, layer, context.start)
        blocks = (affine, *context.normalize(layer), *context.activate(layer))
        blocks = self._signed(blocks, i)
        is_first = i == 0 and self.n_members > 1  # In the first layer, members share the input.
        has_sum = self.residual and fan_in == layer and not is_first
        if self.is_monotone:
            has_sum &= self.directions[i] == self.directions[i + 1]
        return (Residual(blocks),) if has_sum else blocks

    @cached_property
    def _all_blocks(self) -> tuple[Block, ...]:
        return tuple(block for layer in self.blocks for block in layer)

    @cached_property
    def is_flat(self) -> bool:
        """Whether the network is a plain sequence of dense layers."""
        return all(block.is_dense for block in self._all_blocks if block.has_params)

    @property
    def takes_sparse(self) -> bool:
        """Whether the input may be sparse, which only a dense first layer supports."""
        return self._all_blocks[0].takes_sparse

    @cached_property
    def additive_blocks(self) -> tuple[Block, ...]:
        """The first blocks, whose output is a sum of functions of one input column each.

        This is true in a prediction; a column's function includes its embedding.
        """
        n = 0 if self.inputs is None else 1
        return self._all_blocks[:n] + tuple(
            takewhile(lambda block: block.is_linear, self._all_blocks[n:])
        )

    @property
    def other_blocks(self) -> tuple[Block, ...]:
        """The blocks after `additive_blocks`."""
        return self._all_blocks[len(self.additive_blocks) :]

    @property
    def adapts(self) -> bool:
        """Whether the initial parameters depend on the data."""
        return any(block.adapts for block in self._all_blocks)

    @cached_property
    def n_keys(self) -> int:
        """The number of random keys of a training step, one per dropout."""
        return sum(block.n_keys for block in self._all_blocks)

    @cached_property
    def dropout_rates(self) -> tuple[float, ...]:
        """The dropout rate of each key; 0 if a custom block does not define the rate."""
        rates = (block.dropout_rates or (0.0,) * block.n_keys for block in self._all_blocks)
        return sum(rates, ())

    @property
    def structure(self) -> Hashable:
        """The settings that determine a stack's compiled step: all except dropout rates."""
        if any(block.n_keys > len(block.dropout_rates) for block in self._all_blocks):
            return self
        names = (field.name for field in fields(self) if "dropout" not in field.name)
        rates = self.input_dropout, *self._one_for_each_layer("dropout")
        return (*(getattr(self, name) for name in names), *map(bool, rates))

    @cached_property
    def batch_stats_widths(self) -> tuple[int, ...]:
        """The number of features in each batch normalization."""
        return tuple(width for block in self._all_blocks for width in block.batch_stats_widths)


def init_params(network: Network, seed: int | RandomState) -> Params:
    r"""Draw the initial weights on the host in float64, so they are the same on every backend.

    Weights and biases are uniform in :math:`\pm\sqrt{6 / (\text{fan\_in} + \text{fan\_out})}`
    (Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010, equation 16), with 2 instead of 6 if the activation is logistic. A `RandomState` draws
    them in scikit-learn's order. Layers in `mlp_xp.nn.hidden` document where they use other initial
    weights.
    """
    generator = host_generator(seed, "weights") if isinstance(seed, int) else seed
    return draw_params(network, generator.uniform)


def draw_params(
    network: Network, uniform: Callable[..., Any], constant: Callable[..., Any] = constant
) -> Params:
    """Create parameters by calling ``uniform(low, high, shape)`` and ``constant(value, shape)``."""
    blocks = (block for block in network._all_blocks if block.has_params)
    return tuple(block.init(uniform, constant) for block in blocks)


def adapt_params(
    network: Network, params: Params, x: Array, uniform: Callable[..., Any], *, xp: Namespace
) -> Params:
    """Fit initial parameters on the host to a sample of the inputs, (samples, inputs).

    ``uniform(low, high, shape)`` returns an array of random numbers.
    """
    context = Context(xp, batch_stats=init_batch_stats(network))
    return adapt(network._all_blocks, params, x, uniform, context)


def init_batch_stats(network: Network) -> Measured:
    """Return the initial running statistics, with mean 0 and variance 1, as float64 in NumPy."""
    widths = network.batch_stats_widths
    pairs: list[tuple[Any, Any]] = [(constant(0.0, n), constant(1.0, n)) for n in widths]
    return tuple(BatchStats(*pair) for pair in pairs)


def forward(
    network: Network, params: Params, x: Array, context: Context | None = None, *, xp: Namespace
) -> tuple[Array, LayerPullback, Measured]:
    """Run the network. By default, this is a prediction, without a backend's faster layers.

    Return the logits, (..., batch, outputs), the pullback, ``pullback(dlogits, need_dx=...)``, and,
    in training, the statistics of the batch for each batch normalization.
    """
    return chain(network._all_blocks, params, x, context or Context(xp))


def derived_blocks(network: Network, params: Params) -> Iterator[tuple[Block, Tree, int]]:
    """Yield the blocks that define `forward`, with their parameters and numbers of inputs."""
    return _derived_blocks(network._all_blocks, params, network.sizes[0])


def _derived_blocks(
    blocks: Iterable[Block], params: Tree, width: int
) -> Iterator[tuple[Block, Tree, int]]:
    remaining = iter(params)
    for block in blocks:
        own: Any = next(remaining) if block.has_params else ()
        if type(block).__call__ is Block.__call__:
            yield block, own, width
        yield from _derived_blocks(getattr(block, "blocks", ()), own, width)  # As of `Residual`.
        width = block.fan_out or width


def hidden(network: Network, params: Params, x: Array, context: Context, depth: int) -> Array:
    """Return the output of the first ``depth`` hidden layers, (..., batch, width)."""
    blocks = tuple(block for layer in network.blocks[:depth] for block in layer)
    return chain(blocks, params, x, context)[0]


def with_layers(network: Network, given: Iterable[Any]) -> Params:
    """Return the parameters of blocks, arranged in the structure of the network's parameters.

    Entries of the same type keep their order; types that the network does not have are left out.
    """
    by_kind: dict[type, list[Any]] = {}
    for entry in given:
        by_kind.setdefault(type(entry), []).append(entry)
    remaining: dict[type, Iterator[Any]] = {kind: iter(found) for kind, found in by_kind.items()}

    def fill(node: Tree) -> Params:
        if hasattr(node, "_fields"):
            return next(remaining[type(node)])
        return tuple(fill(branch) for branch in node)

    return fill(draw_params(network, lambda low, high, shape: (), lambda value, shape: ()))
