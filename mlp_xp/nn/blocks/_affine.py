"""Dense layers, full and block-diagonal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from mlp_xp._utils.array_types import Array
from mlp_xp.nn.blocks._base import Block, BlockPullback, Context, Make, Measured
from mlp_xp.nn.layers import Arrangement, Dense

__all__ = ["Affine", "BlockAffine", "Start"]


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
class Affine(Block):
    """A dense layer."""

    fan_in: int
    fan_out: int
    start: Start = "glorot"
    takes_sparse: ClassVar[bool] = True
    is_dense: ClassVar[bool] = True
    label: ClassVar[str] = "dense"

    @property
    def work(self) -> int:  # type: ignore[override]
        """Two for each weight."""
        return 2 * self.fan_in * self.fan_out

    def init(self, uniform: Make, constant: Make) -> Dense:
        """Draw weights and biases."""
        return _draw(uniform, constant, self.start, (self.fan_in, self.fan_out), self.fan_out)

    def __call__(
        self, params: Dense, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """Apply `mlp_xp.nn.layers.dense`."""
        return *context.dense(params, x, xp=context.xp), ()


@dataclass(frozen=True)
class BlockAffine(Block):
    """A block-diagonal dense layer."""

    arrangement: Arrangement
    start: Start = "glorot"
    is_dense: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """The name in a summary."""
        return f"{self.arrangement.blocks} dense blocks"

    @property
    def work(self) -> int:  # type: ignore[override]
        """Two for each weight."""
        return 2 * self.fan_out * self.arrangement.fan_in

    @property
    def fan_out(self) -> int:  # type: ignore[override]
        """The outputs of all blocks together."""
        return self.arrangement.blocks * self.arrangement.fan_out

    def init(self, uniform: Make, constant: Make) -> Dense:
        """Draw weights and biases."""
        arrangement = self.arrangement
        shape = arrangement.blocks, arrangement.fan_in, arrangement.fan_out
        return _draw(uniform, constant, self.start, shape, self.fan_out)

    def __call__(
        self, params: Dense, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """Apply `mlp_xp.nn.layers.block_dense`."""
        return *context.dense(params, x, self.arrangement, xp=context.xp), ()
