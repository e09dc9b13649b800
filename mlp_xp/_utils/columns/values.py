"""Infer the kind of a column from its values."""

from __future__ import annotations

import datetime
import math
import sys
from decimal import Decimal
from numbers import Number
from typing import Any

import numpy as np

from mlp_xp._utils.columns.kinds import MISSING_TYPES, RawColumn, is_missing
from mlp_xp._utils.columns.problems import ColumnError

_SECOND = np.timedelta64(1, "s")
_DATES = datetime.date, np.datetime64


def read_values(label: str, values: np.ndarray) -> RawColumn:
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
        return RawColumn(label, "flag" if kind == "b" else "text", values)
    types = {*map(type, values.tolist())}
    gaps = {one for one in types if one.__name__ in MISSING_TYPES}
    types -= gaps
    others = [one for one in types if one is not float]  # NaN is always missing.
    if others and all(issubclass(one, str | bytes) for one in others):
        return RawColumn(label, "text", values)
    if others and all(issubclass(one, bool | np.bool_) for one in others):
        return RawColumn(label, "flag", values)
    if all(issubclass(one, Number | Decimal) for one in types):
        if gaps - {type(None)}:  # NumPy does not convert other missing values to NaN.
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
    return RawColumn(label, "text", values)


def _as_dates(values: list[Any]) -> np.ndarray:
    """Return dates without time zones as ``datetime64``, parsing each distinct date only once."""
    distinct = dict.fromkeys(values)
    if any(getattr(value, "tzinfo", None) for value in distinct):  # Equal times may differ locally.
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


def large_integer(values: Any) -> str:
    """Describe the first integer above float64's range and its position, for an error."""
    array = np.asarray(values, dtype=object)
    sizes = ((i, v.bit_length()) for i, v in np.ndenumerate(array) if isinstance(v, int))
    place, size = next((i, size) for i, size in sizes if size > sys.float_info.max_exp)
    where = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
    digits = int(math.log10(2) * size) + 1
    return f"a {digits}-digit integer in {where}, too large for float64"
