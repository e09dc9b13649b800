"""Read the columns of any library's data frame, or of a matrix, as NumPy arrays."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from numbers import Number
from typing import Any

import numpy as np
from narwhals.stable import v2 as narwhals

from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.signals.forks import cached_property
from mlp_xp.estimators.checks.range import large_integer
from mlp_xp.estimators.tables.frames import as_frame, match_names
from mlp_xp.estimators.tables.problems import ColumnError

Category = str | float

_SECOND = np.timedelta64(1, "s")
_SECONDS = 86_400
_LARGEST = 1 << 53  # float64 represents every integer up to this number exactly.
_DATES = datetime.date, np.datetime64
_MISSING = {"NoneType", "NAType", "NaTType"}


@dataclass(frozen=True, eq=False)
class RawColumn:
    """A column before encoding.

    ``label`` is the column's name in errors. ``values``, of shape ``(rows,)``, holds numbers (NaN
    if missing) or ``datetime64`` (NaT if missing). For the kinds "bool" and "category", it holds
    any values, and None, NaN and pandas' NA mean missing. ``is_declared`` is true if the frame
    declares the column categorical, and ``is_polars`` if the frame is from polars. A column with an
    ``error`` cannot be used.
    """

    label: str
    kind: str
    values: np.ndarray
    is_declared: bool = False
    error: ColumnError | None = None
    is_polars: bool = False

    def raise_error(self) -> None:
        """Raise the error of a column that cannot be used."""
        if self.error is not None:
            raise self.error

    @property
    def is_empty(self) -> bool:
        """Whether no row has a value."""
        if self.kind == "number":
            return bool(np.all(np.isnan(self.values)))
        if self.kind == "date":
            return bool(np.all(np.isnat(self.values)))
        return bool(np.all(self.factors[0] < 0))

    @cached_property
    def factors(self) -> tuple[np.ndarray, Sequence[Category]]:
        """The index of each row's category (-1 if missing), and the categories, unsorted.

        Text stays text, numbers and bools become floats, and other objects are converted to text.
        """
        values = self.values
        if self.kind == "date":
            values = np.datetime_as_string(values).astype(object)
            values[np.isnat(self.values)] = None
        if values.dtype.kind == "O":
            places: dict[Any, int] = {}
            try:
                seen = [places.setdefault(value, len(places)) for value in values.tolist()]
            except TypeError as error:
                wrong = next(value for value in values if type(value).__hash__ is None)
                raise _no_values(self.label, wrong) from error
            raw, inverse = [*places], np.asarray(seen, dtype=np.intp)
        else:
            unique, inverse = np.unique(values, return_inverse=True)
            raw = unique.tolist()
        merged: dict[Category, int] = {}
        targets = [
            -1 if is_missing(value) else merged.setdefault(_plain(self.label, value), len(merged))
            for value in raw
        ]
        return np.asarray(targets, dtype=np.int32)[inverse], [*merged]


def read_table(X: Any) -> list[RawColumn]:
    """Return the columns of a data frame that narwhals supports, or of an array-like matrix.

    Raise ValueError for other X, or if a column has cells such as lists.
    """
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
        _read(f"X[:, {i}]", len(matrix), partial(_of_values, values=matrix[:, i]))
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
        return RawColumn(label, "category", np.zeros(n_rows), error=error)


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
        return RawColumn(label, "category", values, is_declared=True)
    if dtype.is_nested():
        raise _no_values(label, series.to_list()[0])
    is_wide = isinstance(dtype, narwhals.Int128 | narwhals.UInt128)  # NumPy lacks these integers.
    values = (series.cast(narwhals.Float64) if is_wide else series).to_numpy()
    if dtype.is_numeric() or (isinstance(dtype, narwhals.Unknown) and values.dtype.kind == "f"):
        is_decimal = values.dtype.kind == "O"
        return RawColumn(label, "number", values.astype(np.float64) if is_decimal else values)
    return _of_values(label, values)


def _of_values(label: str, values: np.ndarray) -> RawColumn:
    """Return a column whose kind is inferred from its values."""
    kind = values.dtype.kind
    if kind in "iuf":
        return RawColumn(label, "number", values)
    if kind == "M":
        return RawColumn(label, "date", values)
    if kind == "m":
        return RawColumn(label, "number", values / _SECOND)
    if kind == "c":
        raise ValueError(f"Complex data not supported: {label} is of dtype {values.dtype}.")
    if kind != "O":
        return RawColumn(label, "bool" if kind == "b" else "category", values)
    types = {*map(type, values.tolist())}
    gaps = {one for one in types if one.__name__ in _MISSING}
    types -= gaps
    others = [one for one in types if one is not float]  # NaN always counts as missing.
    if others and all(issubclass(one, str | bytes) for one in others):
        return RawColumn(label, "category", values)
    if others and all(issubclass(one, bool | np.bool_) for one in others):
        return RawColumn(label, "bool", values)
    if all(issubclass(one, Number | Decimal) for one in types):
        if gaps - {type(None)}:  # NumPy converts no other missing value to NaN.
            values = np.asarray([None if is_missing(v) else v for v in values], dtype=object)
        try:
            return RawColumn(label, "number", values.astype(np.float64))
        except OverflowError:
            reason = f"has {large_integer(values)}"
            raise ColumnError(label, reason, "correct it, or convert the column to text") from None
    if all(issubclass(one, _DATES) or hasattr(one, "start_time") for one in others):
        return RawColumn(label, "date", _as_dates(values.tolist()))
    for type_, seconds in _SECONDS_OF.items():
        if all(issubclass(one, type_) for one in others):
            numbers = [np.nan if is_missing(v) else seconds(v) for v in values]
            return RawColumn(label, "number", np.asarray(numbers))
    return RawColumn(label, "category", values)


def join_columns(parts: Sequence[RawColumn]) -> RawColumn:
    """Join a column's rows from all processes; raise ValueError if their kinds differ."""
    if wrong := next((part for part in parts if part.error is not None), None):
        return wrong
    kinds = {part.kind for part in parts if not part.is_empty} or {parts[0].kind}
    if len(kinds) > 1:
        raise ValueError(
            f"{parts[0].label} has {' and '.join(sorted(kinds))} values on different ranks: "
            "convert it to one kind."
        )
    (kind,) = kinds
    dtype: Any = {"number": np.float64, "date": "datetime64[us]"}.get(kind, object)
    missing: Any = {"number": np.nan, "date": np.datetime64("NaT", "us")}.get(kind)
    values = [
        np.full(len(part.values), missing, dtype) if part.is_empty else part.values.astype(dtype)
        for part in parts
    ]
    is_declared = any(part.is_declared for part in parts)
    return RawColumn(parts[0].label, kind, np.concatenate(values), is_declared)


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, or pandas' NA or NaT."""
    if isinstance(value, float | np.floating):
        return bool(value != value)
    return type(value).__name__ in _MISSING


def _as_dates(values: list[Any]) -> np.ndarray:
    """Return dates without their time zones as ``datetime64``; read distinct ones once."""
    distinct = dict.fromkeys(values)
    if any(getattr(value, "tzinfo", None) for value in distinct):  # 0:00 here is 1:00 elsewhere.
        return np.asarray([*map(_as_date, values)], "datetime64[us]")
    dates = np.asarray([*map(_as_date, distinct)], "datetime64[us]")
    places = dict(zip(distinct, range(len(dates)), strict=True))
    return dates[[*map(places.__getitem__, values)]]


def _as_date(value: Any) -> Any:
    """Return a date without a time zone (the start of a pandas Period), or None if missing."""
    if is_missing(value):
        return None
    date = getattr(value, "start_time", value)
    return date.replace(tzinfo=None) if isinstance(date, datetime.datetime) else date


def _second_of_day(time: datetime.time) -> float:
    return 3600.0 * time.hour + 60.0 * time.minute + time.second + 1e-6 * time.microsecond


_SECONDS_OF: dict[type, Any] = {
    datetime.timedelta: datetime.timedelta.total_seconds,
    datetime.time: _second_of_day,
}


def text_and_numbers(label: str) -> ColumnError:
    """Return the error for a column that mixes text and numbers."""
    cure = "convert it to one of them, e.g. by pandas.to_numeric(column, errors='coerce') or "
    return ColumnError(label, "has text and numbers", f"{cure}column.astype(str)")


def _no_values(label: str, value: Any) -> ColumnError:
    reason = f"has cells that are not values, e.g. {value!r}"
    return ColumnError(label, reason, "drop the column, or convert it to numbers or text")


def _plain(label: str, value: Any) -> Category:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, int) and abs(value) > _LARGEST:
        reason = f"has the category {value}, but integers above 2**53 are not exact"
        raise ColumnError(label, reason, "convert it to text, e.g. by column.astype(str)")
    is_number = isinstance(value, Number | np.bool_ | Decimal)
    return float(value) if is_number else str(value)
