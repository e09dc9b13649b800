"""Monotone layers: blocks whose weights have fixed signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.nn.blocks._base import Applied, Block, Context, Make
from mlp_xp.nn.layers import INCREASING, Directions, direction_array, signed

# The fraction of each hidden layer's features that depend on inputs without a constraint only.
_FREE = 0.5
# What a monotone network requires of each parameter: a text, and the test of a value.
_NEEDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "hidden_layer_sizes": (
        "integers",
        lambda sizes: isinstance(sizes, int) or all(isinstance(size, int) for size in sizes),
    ),
    "activation": (
        f"one of {[*INCREASING]}",
        lambda given: {*(given if isinstance(given, tuple) else (given,))} <= {*INCREASING},
    ),
    "numeric_embedding": (
        "'ple', PLE(...) or None",
        lambda given: given is None or given.can_be_monotone,
    ),
    "normalization": ("'batch' or None", lambda given: given in ("batch", None)),
    "parametrization": ("'standard'", lambda given: given == "standard"),
    "parametric_activation": ("False", lambda given: not given),
}


def hidden_directions(width: int, inputs: Directions) -> Directions:
    """Return the directions of a hidden layer's features, given the directions of its inputs.

    Half of the features that depend on constrained inputs increase, the others decrease. With relu,
    these are convex and concave functions of an input, which together fit any monotone function.
    """
    n_free = round(_FREE * width) if 0 in inputs else 0
    n_up = (width - n_free + 1) // 2
    return (0,) * n_free + (1,) * n_up + (-1,) * (width - n_free - n_up)


def keeps_order(name: str, value: Any) -> bool:
    """Whether a network with this parameter can be monotone."""
    return name not in _NEEDS or _NEEDS[name][1](value)


def check_monotone(network: Any) -> None:
    """Raise ValueError for settings with which a network may not be monotone."""
    given = {"hidden_layer_sizes": network.widths[1:-1]}
    given |= {"numeric_embedding": network.inputs.numeric}
    for name, (need, _) in _NEEDS.items():
        value = given[name] if name in given else getattr(network, name)
        if not keeps_order(name, value):
            raise ValueError(
                f"`{name}` must be {need} with monotonic_cst, got {value!r}: other values cannot "
                "guarantee that predictions are monotone."
            )


@dataclass(frozen=True)
class Signed(Block):
    """A block whose weights have the signs that make its outputs monotone in its inputs.

    A direction is 1 for a feature that never decreases if the network's constrained inputs move in
    the direction of their constraints, -1 for a feature that never increases, and 0 for a feature
    that does not depend on constrained inputs.
    """

    block: Block
    inputs: Directions
    outputs: Directions

    @property
    def label(self) -> str:
        return f"{self.block.label}, monotone"

    @property
    def fan_out(self) -> int | None:  # type: ignore[override]
        """The number of outputs."""
        return self.block.fan_out

    @property
    def work(self) -> int:  # type: ignore[override]
        return self.block.work

    @property
    def batch_stats_widths(self) -> tuple[int, ...]:  # type: ignore[override]
        """The width of the block's batch normalization, if it is one."""
        return self.block.batch_stats_widths

    @property
    def adapts(self) -> bool:  # type: ignore[override]
        """Whether the block's initial parameters depend on the data."""
        return self.block.adapts

    def init(self, uniform: Make, constant: Make) -> Tree:
        """Draw the parameters of the block, whose signs may be wrong."""
        return self.block.init(uniform, constant)

    def adapt(self, params: Any, x: Any, uniform: Make, context: Context) -> Tree:
        """Fit the block's initial parameters to the data."""
        return self.block.adapt(params, x, uniform, context)

    def __call__(self, params: Any, x: Array, context: Context) -> Applied:
        """Correct the signs of the parameters, and run the block."""
        xp, given = context.xp, leaves(params)
        arrays = (direction_array(d, given[0], xp=xp) for d in (self.inputs, self.outputs))
        found = self.block.signs(*arrays)
        pairs = [
            (leaf, lambda d: d) if signs is None else signed(leaf, signs, xp=xp)
            for leaf, signs in zip(given, found, strict=True)
        ]
        y, pull, measured = self.block(rebuild(params, [leaf for leaf, _ in pairs]), x, context)

        def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
            dx, grads = pull(dy, need_dx=need_dx)
            pulled = [p(grad) for (_, p), grad in zip(pairs, leaves(grads), strict=True)]
            return dx, rebuild(params, pulled)

        return y, pullback, measured
