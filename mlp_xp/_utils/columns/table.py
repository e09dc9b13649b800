"""A table whose columns keep their kinds and dtypes, in a fraction of the memory of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp._utils.dataclass import dataclass

if TYPE_CHECKING:
    from mlp_xp._utils.columns.kinds import RawColumn

_BYTES = {np.dtype(bool), np.dtype(np.uint8)}


@dataclass(frozen=True, eq=False)
class ColumnTable:
    """A table as a tuple of columns, which can be indexed by rows like a matrix."""

    columns: tuple[RawColumn, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return len(self.columns[0].values), len(self.columns)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> ColumnTable:
        """Return some rows, given as a slice, a mask or positions."""
        return ColumnTable(tuple(raw.take(rows) for raw in self.columns))

    def numbered(self) -> list[RawColumn]:
        """Return the columns with labels such as ``X[:, 0]``, like the columns of a matrix."""
        return [replace(raw, label=f"X[:, {i}]") for i, raw in enumerate(self.columns)]

    def matrix(self) -> np.ndarray:
        """Return a matrix of bytes or float64, or of objects if there is text or a date."""
        dtypes = {raw.values.dtype for raw in self.columns}
        has_objects = any(raw.kind in ("date", "text") for raw in self.columns)
        dtype = object if has_objects else np.uint8 if dtypes <= _BYTES else np.float64
        x = np.empty(self.shape, dtype)
        for i, raw in enumerate(self.columns):
            values = raw.plain_values
            x[:, i] = values.astype(np.float64) if values.dtype == bool else values
        return x

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.matrix(), dtype)


def as_matrix(x: Any) -> np.ndarray:
    """Return a table as a matrix, and a matrix unchanged."""
    return x.matrix() if isinstance(x, ColumnTable) else x


def select_columns(x: Any, positions: Sequence[int]) -> Any:
    """Return some columns of a matrix or a table."""
    if isinstance(x, ColumnTable):
        return ColumnTable(tuple(x.columns[i] for i in positions))
    return x[:, positions]


def join_rows(parts: Sequence[Any]) -> Any:
    """Return the rows of several matrices, or of several tables with equal columns."""
    if len(parts) == 1:
        return parts[0]
    if not all(isinstance(part, ColumnTable) for part in parts):
        return np.concatenate([*map(as_matrix, parts)])
    from mlp_xp._utils.columns.kinds import join_columns  # Import only if there are tables.

    columns = zip(*(part.columns for part in parts), strict=True)
    return ColumnTable(tuple(map(join_columns, columns)))
