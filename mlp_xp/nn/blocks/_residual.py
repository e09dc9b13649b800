"""Residual blocks."""

from __future__ import annotations

from typing import Any

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.blocks._base import Applied, Block, Context, Make, Row, adapt, chain, rows


@dataclass(frozen=True)
class Residual(Block):
    """A residual block, which adds the inner blocks' output to their input, :math:`y = x + f(x)`.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition" (2016), arXiv:1512.03385.
    """

    blocks: tuple[Block, ...]

    @property
    def n_keys(self) -> int:  # type: ignore[override]
        """The number of random keys that the inner blocks need."""
        return sum(block.n_keys for block in self.blocks)

    @property
    def dropout_rates(self) -> tuple[float, ...]:  # type: ignore[override]
        """The dropout rates of the inner blocks."""
        return tuple(rate for block in self.blocks for rate in block.dropout_rates)

    @property
    def batch_stats_widths(self) -> tuple[int, ...]:  # type: ignore[override]
        """The width of each batch normalization in the inner blocks."""
        return tuple(width for block in self.blocks for width in block.batch_stats_widths)

    def rows(self, width: int) -> tuple[Row, ...]:
        """Return the summary rows of the inner blocks."""
        first, *others = rows(self.blocks, width)
        return first._replace(name=f"residual, {first.name}"), *others

    def init(self, uniform: Make, constant: Make) -> Tree:
        """Draw the parameters of the inner blocks."""
        return tuple(block.init(uniform, constant) for block in self.blocks if block.has_params)

    @property
    def adapts(self) -> bool:  # type: ignore[override]
        """Whether an inner block's initial parameters depend on the data."""
        return any(block.adapts for block in self.blocks)

    def adapt(self, params: Tree, x: Any, uniform: Make, context: Context) -> Tree:
        """Fit the initial parameters of the inner blocks to the data."""
        return adapt(self.blocks, params, x, uniform, context)

    def __call__(self, params: Tree, x: Array, context: Context) -> Applied:
        """Run the inner blocks, and add the input to their output."""
        y, pull, measured = chain(self.blocks, params, x, context)

        def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
            dx, grads = pull(dy, need_dx=need_dx)
            return None if dx is None else dx + dy, grads

        return x + y, pullback, measured
