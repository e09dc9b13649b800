"""The inputs of a table: numbers, indicators, and codes of categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp.nn.blocks._base import Block, BlockPullback, Context, Make, Measured, Row
from mlp_xp.nn.layers import Embedding, embed

__all__ = ["TableInputs"]

_MOST_ROWS = 1 << 24  # Above, float32 has no code of its own for each row.


@dataclass(frozen=True)
class TableInputs(Block):
    """The block before the first layer of a network of a table, a matrix of three parts.

    The columns are ``[numbers | indicators | codes]``. Codes are positions in one table of
    embeddings, as floats: the categories of a column come after those of the columns before, so the
    first code of a column is the number of all categories before it. Embeddings take the place of
    the codes.

    Parameters
    ----------
    numbers : int of at least 0
        Columns of numbers.
    indicators : int of at least 0, default=0
        Columns that are taken as they are: what is missing, and one-hot encoded categories.
    categories : tuple of int of at least 1, default=()
        For each column of codes, the number of its categories.
    embedding_dim : int of at least 1, default=8
        Numbers of the embedding of a category.

    Examples
    --------
    >>> from mlp_xp.nn.blocks import TableInputs
    >>> inputs = TableInputs(numbers=3, indicators=2, categories=(10, 200), embedding_dim=4)
    >>> inputs.columns, inputs.fan_out
    (7, 13)
    """

    numbers: int
    indicators: int = 0
    categories: tuple[int, ...] = ()
    embedding_dim: int = 8
    label: ClassVar[str] = "inputs"

    def __post_init__(self) -> None:
        counts = {"numbers": 0, "indicators": 0, "embedding_dim": 1}
        for name, least in counts.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"`{name}` must be an integer of at least {least}, got {value!r}.")
        object.__setattr__(self, "categories", tuple(self.categories))
        if any(type(n) is not int or n < 1 for n in self.categories) or not self.columns:
            raise ValueError(
                f"`categories` must be integers of at least 1, got {self.categories!r}: give the "
                "number of categories of each column of codes."
            )
        if sum(self.categories) > _MOST_ROWS:
            raise ValueError(
                f"The columns have {sum(self.categories)} categories in all, and an embedding can "
                f"have {_MOST_ROWS}: join rare ones."
            )

    @property
    def columns(self) -> int:
        """The columns of the matrix."""
        return self.numbers + self.indicators + len(self.categories)

    @property
    def fan_out(self) -> int:  # type: ignore[override]
        """The numbers that the first layer takes."""
        return self.numbers + self.indicators + len(self.categories) * self.embedding_dim

    def rows(self, width: int) -> tuple[Row, ...]:
        """Return a line for each part that learns."""
        if not self.categories:
            return (Row(self.label, self.fan_out, 0, 0),)
        return (Row(f"{self.label}, embeddings", self.fan_out, self.n_parameters, self.work),)

    def init(self, uniform: Make, constant: Make) -> Tree:
        """Draw normal embeddings of variance 1."""
        if not self.categories:
            return ()
        return (Embedding(normal(uniform, (sum(self.categories), self.embedding_dim))),)

    def __call__(
        self, params: Any, x: Array, context: Context
    ) -> tuple[Array, BlockPullback, Measured]:
        """Put embeddings in the place of codes."""
        xp, n_plain = context.xp, self.numbers + self.indicators
        if not self.categories:
            return x, lambda dy, *, need_dx: (dy if need_dx else None, ()), ()
        (table,) = params
        codes = x[..., n_plain:]
        embedded, pull = context.run_layer(embed, table, xp.astype(codes, xp.int32), xp=xp)
        plain = x[..., :n_plain]
        if table.table.ndim > 2 and plain.ndim == 2:  # Models that share their samples.
            plain = xp.broadcast_to(plain, (*embedded.shape[:-1], n_plain))
        y = xp.concat([plain, xp.astype(embedded, x.dtype, copy=False)], axis=-1)

        def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
            dx = None
            if need_dx:  # A code has no neighbors.
                dcodes = xp.zeros_like(codes)
                if dy.ndim > dcodes.ndim:
                    dcodes = xp.broadcast_to(dcodes, (*dy.shape[:-1], dcodes.shape[-1]))
                dx = xp.concat([dy[..., :n_plain], dcodes], axis=-1)
            return dx, (pull(dy[..., n_plain:], need_dx=False)[1],)

        return y, pullback, ()


def normal(uniform: Make, shape: tuple[int, ...]) -> Any:
    """Return numbers of the standard normal distribution, from uniform ones.

    What a maker of shapes or counts returns stays as it is.
    """
    from scipy.special import ndtri  # Most networks start without this module.

    drawn = uniform(0.0, 1.0, shape)
    return ndtri(drawn) if hasattr(drawn, "dtype") else drawn
