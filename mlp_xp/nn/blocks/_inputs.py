"""Inputs from a table: numbers, indicators, and category codes."""

from __future__ import annotations

from functools import partial
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.blocks._base import Applied, Block, Context, Make, normal
from mlp_xp.nn.blocks._numeric import NumericEmbedding, check_counts
from mlp_xp.nn.layers import (
    Directions,
    Embedding,
    InputScale,
    LayerPullback,
    Signs,
    embed,
    scale_inputs,
)

_MOST_ROWS = 1 << 24  # float32 represents all integers up to this number.


@dataclass(frozen=True)
class TableInputs(Block):
    """The first block of a network for tables: it embeds numbers and categories.

    The columns of the input matrix are ``[numbers | indicators | codes]``. Numbers must be scaled;
    if ``numeric`` is given, its embeddings replace the numbers. Indicators (missing values, one-hot
    categories) are unchanged. Embeddings with ``embedding_dim`` numbers replace the codes. All
    category embeddings are in one table, with one row per category, sorted by column. A code is the
    index of a row, as a float. ``categories`` is the number of categories in each column. If
    ``scale`` is true, learned factors multiply all inputs of the first layer. ``directions`` has 1
    for each number that must never decrease the network's outputs, -1 for each that must never
    increase them, and 0 for the others; by default, all are 0.
    """

    numbers: int
    indicators: int = 0
    categories: tuple[int, ...] = ()
    embedding_dim: int = 8
    numeric: NumericEmbedding | None = None
    scale: bool = False
    directions: Directions = ()

    def __post_init__(self) -> None:
        check_counts(self, numbers=0, indicators=0, embedding_dim=1)
        for name in ("categories", "directions"):  # Lists are accepted but not hashable.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        is_right = len(self.directions) in (0, self.numbers) and {*self.directions} <= {-1, 0, 1}
        if not is_right:
            raise ValueError(
                f"`directions` must have -1, 0 or 1 for each of {self.numbers} numbers, got "
                f"{self.directions!r}."
            )
        if any(type(n) is not int or n < 1 for n in self.categories) or not self.columns:
            raise ValueError(
                f"`categories` must be integers of at least 1, got {self.categories!r}: set the "
                "number of categories in each column of codes."
            )
        if sum(self.categories) > _MOST_ROWS:
            raise ValueError(
                f"The columns must have at most {_MOST_ROWS} categories in total, got "
                f"{sum(self.categories)}: merge rare categories."
            )

    @property
    def has_params(self) -> bool:  # type: ignore[override]
        """Whether the inputs are embedded or scaled."""
        return self._numeric is not None or bool(self.categories) or self.scale

    @property
    def columns(self) -> int:
        """The number of columns in the input matrix."""
        return self.numbers + self.indicators + len(self.categories)

    @property
    def fan_out(self) -> int:  # type: ignore[override]
        """The number of inputs of the first layer."""
        embedded = len(self.categories) * self.embedding_dim
        return self._n_numeric + self.indicators + embedded

    @property
    def input_directions(self) -> Directions:
        """The direction of each column of the input matrix."""
        numbers = self.directions or (0,) * self.numbers
        return numbers + (0,) * (self.columns - self.numbers)

    @property
    def output_directions(self) -> Directions:
        """The direction of each input of the first layer."""
        numbers = self.directions or (0,) * self.numbers
        width = 1 if self._numeric is None else self._numeric.outputs
        embedded = tuple(direction for direction in numbers for _ in range(width))
        return embedded + (0,) * (self.fan_out - self._n_numeric)

    @property
    def _n_numeric(self) -> int:
        return self.numbers * (1 if self._numeric is None else self._numeric.outputs)

    @property
    def _numeric(self) -> NumericEmbedding | None:
        """The numeric embedding, or None."""
        return self.numeric if self.numbers else None

    @property
    def adapts(self) -> bool:  # type: ignore[override]
        """Whether the numeric embedding's initial parameters depend on the data."""
        return self._numeric is not None and self._numeric.adapts

    @property
    def work(self) -> int:  # type: ignore[override]
        """The number of operations in the numeric embedding."""
        return 0 if self._numeric is None else self._numeric.work(self.numbers)

    @property
    def label(self) -> str:
        parts = {
            "numbers embedded": self._numeric is not None,
            "categories embedded": bool(self.categories),
            "scaled": self.scale,
        }
        return ", ".join(("inputs", *(name for name, has in parts.items() if has)))

    def init(self, uniform: Make, constant: Make) -> Tree:
        """Draw parameters of the numeric embedding and category embeddings; set scales to 1."""
        parts: list[Any] = []
        if self._numeric is not None:
            parts.append(self._numeric.init(self.numbers, uniform, constant))
        if self.categories:
            shape = sum(self.categories), self.embedding_dim
            parts.append(Embedding(normal(uniform, shape)))
        if self.scale:
            parts.append(InputScale(constant(1.0, (self.fan_out,))))
        return tuple(parts)

    def signs(self, inputs: Array, outputs: Array) -> list[Signs | None]:
        """Return the signs for embeddings that grow with their number, and for positive scales."""
        numeric = [] if self._numeric is None else self._numeric.signs(inputs[: self.numbers])
        categories = [None] if self.categories else []
        return [*numeric, *categories, *([Signs.along(outputs)] if self.scale else [])]

    def adapt(self, params: Any, x: Any, uniform: Make, context: Context) -> Tree:
        """Fit the numeric embedding's parameters to the data."""
        numeric, *others = params
        assert self._numeric is not None
        return self._numeric.adapt(numeric, x[:, : self.numbers], xp=context.xp), *others

    def __call__(self, params: Any, x: Array, context: Context) -> Applied:
        """Embed numbers and codes, and scale the result."""
        xp, remaining = context.xp, iter(params)
        n, m = self.numbers, self.numbers + self.indicators
        pulls: list[LayerPullback | None] = [None, None, None, None]
        parts = [x[..., :n], x[..., n:m]]
        if self._numeric is not None:
            layer = self._numeric.layer
            parts[0], pulls[0] = context.kernels.run_layer(layer, next(remaining), parts[0], xp=xp)
        if self.categories:
            codes = xp.astype(x[..., m:], xp.int32)
            layer = partial(embed, sum_rows=context.kernels.sum_rows_of_table)
            y, pulls[2] = context.kernels.run_layer(layer, next(remaining), codes, xp=xp)
            parts.append(xp.astype(y, x.dtype, copy=False))
        y = _joined([part for part in parts if part.shape[-1]], xp=xp)
        if self.scale:
            y, pulls[3] = context.kernels.run_layer(scale_inputs, next(remaining), y, xp=xp)

        def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
            grads: list[Any] = []
            if pulls[3] is not None:
                dscaled, grad = pulls[3](dy, need_dx=True)
                assert dscaled is not None
                dy = dscaled
                grads.append(grad)
            first, last = self._n_numeric, self._n_numeric + self.indicators
            dparts: list[Any] = [dy[..., :first], dy[..., first:last]]
            if pulls[2] is not None:
                _, grad = pulls[2](dy[..., last:], need_dx=False)
                grads.insert(0, grad)
                # The derivative with respect to a code is 0, since codes are indices.
                dparts.append(xp.zeros_like(dy[..., : len(self.categories)]))
            if pulls[0] is not None:
                dparts[0], grad = pulls[0](dparts[0], need_dx=need_dx)
                grads.insert(0, grad)
            if not need_dx:
                return None, tuple(grads)
            return _joined([part for part in dparts if part.shape[-1]], xp=xp), tuple(grads)

        return y, pullback, ()


def _joined(parts: list[Array], *, xp: Namespace) -> Array:
    """Concatenate features; broadcast parts that all models of a stack share."""
    if len(parts) == 1:
        return parts[0]
    leading = max((part.shape[:-1] for part in parts), key=len)
    wide = [
        part if part.shape[:-1] == leading else xp.broadcast_to(part, (*leading, part.shape[-1]))
        for part in parts
    ]
    return xp.concat(wide, axis=-1)
