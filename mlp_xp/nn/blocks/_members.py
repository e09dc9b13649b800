"""Layers for several networks, called members, that share weights, as in TabM."""

from __future__ import annotations

from typing import Any, ClassVar

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.blocks._affine import Start, draw_dense
from mlp_xp.nn.blocks._base import Applied, Block, Context, Make
from mlp_xp.nn.layers import Heads, SharedDense, Signs, member_heads, shared_dense


@dataclass(frozen=True)
class SharedAffine(Block):
    """A dense layer whose weights all members share; each member has its own scales and biases."""

    n_members: int
    is_first: bool
    fan_in: int
    fan_out: int
    start: Start = "glorot"
    is_linear: ClassVar[bool] = True  # type: ignore[misc]

    @property
    def label(self) -> str:
        return f"dense, shared by {self.n_members}"

    @property
    def work(self) -> int:  # type: ignore[override]
        return 2 * self.fan_in * self.fan_out * self.n_members

    def init(self, uniform: Make, constant: Make) -> SharedDense:
        """Draw the weights and, in the first layer, random signs for each member's inputs."""
        W, b = draw_dense(uniform, constant, self.start, (self.fan_in, self.fan_out), self.fan_out)
        shape = self.n_members, self.fan_in
        r = _signs(uniform, shape) if self.is_first else constant(1.0, shape)
        biases: Any = self.n_members, self.fan_out
        s = constant(1.0, biases)
        if hasattr(b, "dtype"):
            biases = b + 0.0 * s
        return SharedDense(W, r, s, biases)

    def signs(self, inputs: Array, outputs: Array) -> list[Signs | None]:
        scales = Signs.along(inputs), Signs.along(outputs)
        return [Signs.between(inputs, outputs), *scales, None]

    def __call__(self, params: SharedDense, x: Array, context: Context) -> Applied:
        """Apply `mlp_xp.nn.layers.shared_dense`."""
        return *shared_dense(params, x, self.is_first, xp=context.xp), ()


@dataclass(frozen=True)
class MemberHeads(Block):
    """The output layers of all members, which share no weights."""

    n_members: int
    fan_in: int
    fan_out: int  # The total number of outputs of all members.
    start: Start = "glorot"
    label: ClassVar[str] = "dense, of each member"

    @property
    def work(self) -> int:  # type: ignore[override]
        return 2 * self.fan_in * self.fan_out

    def init(self, uniform: Make, constant: Make) -> Heads:
        shape = self.n_members, self.fan_in, self.fan_out // self.n_members
        return Heads(*draw_dense(uniform, constant, self.start, shape, (shape[0], shape[2])))

    def signs(self, inputs: Array, outputs: Array) -> list[Signs | None]:
        return [Signs.between(inputs, outputs[: self.fan_out // self.n_members]), None]

    def __call__(self, params: Heads, x: Array, context: Context) -> Applied:
        """Apply `mlp_xp.nn.layers.member_heads`."""
        return *member_heads(params, x, xp=context.xp), ()


def check_members(
    n_members: int, widths: tuple[Any, ...], normalization: str | None, parametrization: str
) -> None:
    """Raise ValueError for settings that networks with shared weights do not support."""
    has_widths = len(widths) > 2 and all(isinstance(width, int) for width in widths)
    for name, need, is_right in (
        ("hidden_layer_sizes", "one or more integers, e.g. (256, 256)", has_widths),
        ("normalization", "'layer' or None", normalization != "batch"),
        ("parametrization", "'standard'", parametrization == "standard"),
    ):
        if n_members > 1 and not is_right:
            raise ValueError(
                f"`{name}` must be {need} with n_members={n_members}; or set n_members=1."
            )


def _signs(uniform: Make, shape: tuple[int, ...]) -> Any:
    """Return random signs; if ``uniform`` returns a shape or a count, return that instead."""
    drawn = uniform(-1.0, 1.0, shape)
    return 2.0 * (drawn >= 0.0) - 1.0 if hasattr(drawn, "dtype") else drawn
