"""Read the columns of any library's data frame, or of a matrix, as NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from narwhals.stable import v2 as narwhals

from mlp_xp._utils.columns.arrow import read_text
from mlp_xp._utils.columns.kinds import RawColumn, no_values
from mlp_xp._utils.columns.problems import ColumnError
from mlp_xp._utils.columns.table import ColumnTable
from mlp_xp._utils.columns.values import read_values
from mlp_xp.estimators.tables.frames import as_frame, match_names


def read_table(X: Any) -> list[RawColumn]:
    """Return the columns of a data frame that narwhals supports, or of an array-like matrix.

    Raise ValueError for other X, or if a column has cells such as lists.
    """
    if isinstance(X, ColumnTable):
        return X.numbered()
    if narwhals.dependencies.is_into_dataframe(X):
        return [_read_series(column) for column in as_frame(X).iter_columns()]
    if type(X).__name__ == "LazyFrame":
        raise ValueError("X is a LazyFrame, which has no rows yet: pass X.collect().")
    matrix = X if isinstance(X, np.ndarray) else _as_matrix(X)
    if matrix.ndim != 2:
        cure = "X.reshape(-1, 1) for a single feature or X.reshape(1, -1) for one sample"
        if hasattr(X, "to_frame"):
            cure = "X.to_frame() for a column of a frame, or X.to_frame().T for a row"
        elif matrix.dtype == object:
            cure = "pandas.DataFrame(X) for a list of dicts or a dict of lists"
        raise ValueError(
            f"Expected 2D array, got {matrix.ndim}D array instead: shape {matrix.shape}. Reshape "
            f"your data using {cure}."
        )
    return [
        _read(f"X[:, {i}]", len(matrix), partial(read_values, values=matrix[:, i]))
        for i in range(matrix.shape[1])
    ]


def read_named(X: Any, names: Sequence[str], used: Collection[str]) -> list[RawColumn]:
    """Return the columns of a frame in the order of the fit, matched by name.

    Columns that are not ``used`` are not read. Warn about other columns than ``names``. Raise
    ValueError if a used column is missing.
    """
    frame = match_names(X, names, used)
    gaps = np.broadcast_to(np.nan, len(frame))
    return [
        _read_series(frame[name]) if name in used else RawColumn(name, "number", gaps)
        for name in names
    ]


def _read_series(series: Any) -> RawColumn:
    raw = _read(f"X[{series.name!r}]", len(series), partial(_of_series, series=series))
    return replace(raw, is_polars=series.implementation.is_polars())


def _read(label: str, n_rows: int, read: Callable[[str], RawColumn]) -> RawColumn:
    """Return a column, perhaps with the error that it raises."""
    try:
        return read(label)
    except ColumnError as error:
        return RawColumn(label, "text", np.zeros(n_rows), error=error)


def _as_matrix(X: Any) -> np.ndarray:
    """Return a list of rows as a matrix, of dtype object unless all values are numbers."""
    try:
        matrix = np.asarray(X)
        return np.asarray(X, dtype=object) if matrix.dtype.kind in "USO" else matrix
    except ValueError as error:
        raise ValueError(
            "X has rows of different lengths: each row must have all columns."
        ) from error


def _of_series(label: str, series: Any) -> RawColumn:
    dtype = series.dtype
    if isinstance(dtype, narwhals.Datetime):
        return RawColumn(label, "date", series.dt.replace_time_zone(None).to_numpy())
    # Convert to a list first, since arrays from pyarrow would lose nulls.
    if isinstance(dtype, narwhals.Categorical | narwhals.Enum):
        values = np.fromiter(series.to_list(), object, len(series))
        return RawColumn(label, "text", values, is_declared=True)
    if isinstance(dtype, narwhals.String) and series.implementation.is_pyarrow():
        return read_text(label, series.to_native())
    if dtype.is_nested():
        raise no_values(label, series.to_list()[0])
    is_wide = isinstance(dtype, narwhals.Int128 | narwhals.UInt128)  # NumPy lacks these integers.
    values = (series.cast(narwhals.Float64) if is_wide else series).to_numpy()
    if dtype.is_numeric() or (isinstance(dtype, narwhals.Unknown) and values.dtype.kind == "f"):
        is_decimal = values.dtype.kind == "O"
        return RawColumn(label, "number", values.astype(np.float64) if is_decimal else values)
    return read_values(label, values)
