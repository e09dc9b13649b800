"""Define the kinds of columns, and the class that holds a column before encoding.

To add a kind of values, add it to `KINDS`, and recognize it in `read_values` (`values.py`) and, for
data frames, in `mlp_xp.estimators.tables.reading`. An encoding of it is a class in
`mlp_xp.estimators.tables.kinds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.columns.categories import WORDS, is_finite, parse_date
from mlp_xp._utils.columns.problems import ColumnError
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.signals.forks import cached_property

Category = str | float

_LARGEST = 1 << 53  # float64 represents every integer up to this number exactly.
MISSING_TYPES = {"NoneType", "NAType", "NaTType"}


class Kind(NamedTuple):
    """A kind of column: its names in messages, its NumPy values, and its text parser.

    ``parse(category)`` returns the value of a text or number, or None if it has another kind.
    """

    noun: str
    plural: str
    dtype: str
    missing: Any
    parse: Callable[[Any], Any]


def _parse_number(value: Category) -> float | None:
    return float(value) if is_finite(value) else None


def _parse_word(value: Category) -> float:
    """Return 1 for words such as yes, 0 for words such as no, and -1 for other text."""
    return WORDS.get(value.strip().lower(), -1.0) if isinstance(value, str) else value


_NAT = np.datetime64("NaT", "us")
# A flag is 0 or 1, or written as true, false, yes or no. Text also stands for other categories.
KINDS = {
    "number": Kind("number", "numbers", "float64", math.nan, _parse_number),
    "flag": Kind("bool", "bools", "object", math.nan, _parse_word),
    "date": Kind("date", "dates", "datetime64[us]", _NAT, lambda v: parse_date(str(v).strip())),
    "text": Kind("category", "categories", "object", None, str),
}


@dataclass(frozen=True, eq=False)
class RawColumn:
    """A column before encoding.

    ``label`` is the column's name in errors, and ``kind`` is a key of `KINDS`. ``values``, of shape
    ``(rows,)``, holds numbers (NaN if missing) or ``datetime64`` (NaT if missing). For flags and
    text, it holds any values, and None, NaN and pandas' NA mean missing. ``is_declared`` is true if
    the frame declares the column categorical, and ``is_polars`` if the frame is from polars. A
    column with an ``error`` cannot be used.
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
    def is_missing(self) -> np.ndarray:
        """Whether the value of each row is missing, ``(rows,)``."""
        if self.kind == "number":
            return np.isnan(self.values)
        return np.isnat(self.values) if self.kind == "date" else self.factors[0] < 0

    @property
    def is_empty(self) -> bool:
        """Whether no row has a value."""
        return bool(np.all(self.is_missing))

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
            listed = values.tolist()
            try:
                places = {value: place for place, value in enumerate(dict.fromkeys(listed))}
            except TypeError as error:
                wrong = next(value for value in values if type(value).__hash__ is None)
                raise no_values(self.label, wrong) from error
            seen = map(places.__getitem__, listed)
            raw, inverse = [*places], np.fromiter(seen, np.intp, len(listed))
        else:
            unique, inverse = np.unique(values, return_inverse=True)
            raw = unique.tolist()
        merged: dict[Category, int] = {}
        targets = [
            -1 if is_missing(value) else merged.setdefault(_plain(self.label, value), len(merged))
            for value in raw
        ]
        return np.asarray(targets, dtype=np.int32)[inverse], [*merged]

    @property
    def plain_values(self) -> np.ndarray:
        """The value of each row, ``(rows,)``."""
        return self.values

    def take(self, rows: Any) -> RawColumn:
        """Return some rows, given as a slice, a mask or positions."""
        return replace(self, values=self.values[rows])

    def recode(self, values: Sequence[Any], kind: str) -> RawColumn:
        """Return the column with a value for each category in `factors`, and one for missing."""
        array = np.empty(len(values), KINDS[kind].dtype)
        array[:] = values
        form = self.is_declared, self.error, self.is_polars
        return RawColumn(self.label, kind, array[self.factors[0]], *form)

    @property
    def counts(self) -> dict[Any, int]:
        """The number of rows in each category, excluding missing values."""
        codes, found = self.factors
        counts = np.bincount(codes[codes >= 0], minlength=len(found)).tolist()
        return dict(zip(found, counts, strict=True))


@dataclass(frozen=True, eq=False)
class CodedColumn(RawColumn):
    """A column of text whose ``values`` are positions in ``categories``, or -1 if missing."""

    categories: Sequence[Category] = ()

    @cached_property
    def factors(self) -> tuple[np.ndarray, Sequence[Category]]:
        """The index of each row's category (-1 if missing), and the categories that occur."""
        counts = np.bincount(self.values + 1, minlength=len(self.categories) + 1)[1:]
        if np.all(counts):
            return self.values, self.categories
        places = np.append(np.cumsum(counts > 0) - 1, -1).astype(np.int32)
        kept = [self.categories[i] for i in np.flatnonzero(counts).tolist()]
        return places[self.values], kept

    @property
    def plain_values(self) -> np.ndarray:
        """The text of each row, or None."""
        texts = np.empty(len(self.categories) + 1, dtype=object)
        texts[:-1] = self.categories
        return texts[self.values]


def join_columns(parts: Sequence[RawColumn]) -> RawColumn:
    """Join a column's rows from all processes; raise ValueError if their kinds differ."""
    if wrong := next((part for part in parts if part.error is not None), None):
        return wrong
    kinds = {part.kind for part in parts if not part.is_empty} or {parts[0].kind}
    if len(kinds) > 1:
        raise ValueError(
            f"{parts[0].label} has {' and '.join(sorted(KINDS[kind].noun for kind in kinds))} "
            "values on different ranks: convert it to one kind."
        )
    (name,) = kinds
    kind = KINDS[name]
    values = [
        np.full(len(part.values), kind.missing, kind.dtype)
        if part.is_empty
        else part.plain_values.astype(kind.dtype)
        for part in parts
    ]
    is_declared = any(part.is_declared for part in parts)
    return RawColumn(parts[0].label, name, np.concatenate(values), is_declared)


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or pandas' NA or NaT."""
    if isinstance(value, float | np.floating):
        return bool(value != value)
    return type(value).__name__ in MISSING_TYPES


def no_values(label: str, value: Any) -> ColumnError:
    """Return the error for a column with cells such as lists."""
    reason = f"has cells that are not scalars, e.g. {value!r}"
    return ColumnError(label, reason, "drop the column, or convert it to numbers or text")


def _plain(label: str, value: Any) -> Category:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, int) and abs(value) > _LARGEST:
        reason = f"has the category {value}, but integers above 2**53 are not exact"
        raise ColumnError(label, reason, "convert it to text, e.g. by column.astype(str)")
    is_number = isinstance(value, Number | np.bool_ | Decimal)
    return float(value) if is_number else str(value)
