"""The kinds of columns: each learns from training data, checks new data, and encodes inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from mlp_xp._utils.categories import FEW, MANY, is_date, is_number, least_rows
from mlp_xp._utils.signals.forks import cached_property
from mlp_xp.estimators.tables.reading import Category, RawColumn, text_and_numbers

_SHOWN = 40
_DAY, _SECOND = np.timedelta64(1, "D"), np.timedelta64(1, "s")


@dataclass(frozen=True)
class Column:
    """A column learned from training data; ``has_missing`` is true if values were missing there."""

    name: str
    has_missing: bool

    kind: ClassVar[str]

    def check(self, raw: RawColumn) -> None:
        """Raise ValueError for values of a different kind than in the fit."""
        if raw.kind != self.kind and not raw.is_empty:
            raise _changed(raw.label, _PLURALS[raw.kind], _PLURALS[self.kind])

    @property
    def number_names(self) -> tuple[str, ...]:
        """The names of the column's numeric inputs."""
        return ()

    @property
    def category_names(self) -> tuple[str, ...]:
        """The names of the column's one-hot inputs."""
        return ()

    def numbers(self, raw: RawColumn) -> list[np.ndarray]:
        """Return the column's numeric inputs, each ``(rows,)``, with NaN for missing values."""
        return []

    def to_json(self) -> dict[str, Any]:
        """Return the kind and fields as JSON values."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class EmptyColumn(Column):
    """A column without values in the fit; it is not an input of the network."""

    kind = "empty"

    def check(self, raw: RawColumn) -> None:
        """Ignore the values, which are not an input."""


@dataclass(frozen=True)
class NumberColumn(Column):
    """A column of numbers."""

    kind = "number"

    @classmethod
    def learn(cls, name: str, raw: RawColumn) -> Self:
        """Create the column from the training data."""
        return cls(name, bool(np.any(np.isnan(_as_numbers(raw)))))

    def check(self, raw: RawColumn) -> None:
        """Raise ValueError for dates and categories."""
        if raw.kind != "bool":
            super().check(raw)

    @property
    def number_names(self) -> tuple[str, ...]:
        """The name of the column."""
        return (self.name,)

    def numbers(self, raw: RawColumn) -> list[np.ndarray]:
        """Return the numbers unchanged."""
        return [_as_numbers(raw)]


@dataclass(frozen=True)
class DateColumn(Column):
    """A column of dates, as year, day of year, weekday and, if ``has_time``, second of day."""

    has_time: bool = False

    kind = "date"

    @classmethod
    def learn(cls, name: str, raw: RawColumn) -> Self:
        """Create the column from the training data."""
        there = raw.values[~np.isnat(raw.values)]
        has_time = bool(np.any(there != there.astype("datetime64[D]")))
        return cls(name, len(there) < len(raw.values), has_time)

    @property
    def number_names(self) -> tuple[str, ...]:
        """The names of the parts of a date."""
        parts = ["year", "day of year", "weekday", *(["second of day"] if self.has_time else [])]
        return tuple(f"{self.name}: {part}" for part in parts)

    def numbers(self, raw: RawColumn) -> list[np.ndarray]:
        """Return the parts of the dates; Monday and January 1 are 0."""
        if raw.kind != self.kind:
            return [np.full(len(raw.values), np.nan)] * len(self.number_names)
        days, years = (raw.values.astype(f"datetime64[{unit}]") for unit in "DY")
        year, day = years.astype(np.float64) + 1970.0, (days - years.astype("datetime64[D]")) / _DAY
        number = days.astype(np.float64)
        parts = [year, day, (number + 3.0) % 7.0]  # January 1, 1970, was a Thursday.
        if self.has_time:
            parts.append((raw.values - days) / _SECOND)
        is_gap = np.isnat(raw.values)
        return [np.where(is_gap, np.nan, part) for part in parts]


@dataclass(frozen=True)
class CategoryColumn(Column):
    """A categorical column, with sorted ``values``, either all text or all numbers.

    If ``has_rare`` is true, the training data had rare categories, too; unknown categories are
    treated like rare ones. If ``is_embedded`` is true, the input is a category's code instead of a
    one-hot vector.
    """

    values: tuple[Category, ...] = ()
    has_rare: bool = False
    is_embedded: bool = False

    kind = "category"

    @classmethod
    def learn(cls, name: str, raw: RawColumn, max_one_hot: float, *, is_named: bool) -> Self:
        """Create the column from the training data.

        A column with more than ``max_one_hot`` categories is embedded. If the user named the
        column, its text may be numbers or dates, such as ZIP codes.
        """
        codes, found = raw.factors
        _check_text(raw.label, found, is_named)
        known = codes[codes >= 0]
        counts = np.bincount(known, minlength=len(found))
        is_common = counts >= least_rows(len(codes))
        kept = tuple(sorted(found[i] for i in np.flatnonzero(is_common).tolist()))
        has_missing, has_rare = len(known) < len(codes), len(kept) < len(found)
        return cls(name, has_missing, kept, has_rare, len(kept) > max_one_hot)

    def check(self, raw: RawColumn) -> None:
        """Raise ValueError for dates, and for numbers if the categories were text."""
        is_other = raw.kind == "number" and self.values and self.is_text and not raw.is_empty
        if raw.kind == "date" or is_other:
            super().check(raw)

    @property
    def is_text(self) -> bool:
        """Whether the categories are text."""
        return not self.values or isinstance(self.values[0], str)

    @property
    def category_names(self) -> tuple[str, ...]:
        """The names of the one-hot inputs; two categories share a single input, -1 or 1."""
        if self.is_embedded:
            return ()
        shown = [f"{self.name}={_shown(value)}" for value in self.values]
        if self._is_binary:
            return (shown[1],)
        rare = [f"{self.name} is another"] if self.has_rare else []
        return (*rare, *shown, *([f"{self.name} is missing"] if self.has_missing else []))

    @property
    def n_codes(self) -> int:
        """The number of codes, including those for unknown and missing values."""
        return len(self.values) + 2

    @property
    def _is_binary(self) -> bool:
        return len(self.values) == 2 and not self.has_rare and not self.has_missing

    @cached_property
    def rows(self) -> np.ndarray:
        """The one-hot inputs for each code, ``(categories + 2, inputs)``."""
        if self._is_binary:
            return np.asarray([[0.0], [-1.0], [1.0], [0.0]])
        rows = np.eye(self.n_codes)
        if not self.has_missing:
            rows[-1] = rows[0]  # Treat missing values like unknown ones.
        first = 0 if self.has_rare else 1
        return rows[:, first : first + len(self.category_names)]

    def codes(self, raw: RawColumn) -> np.ndarray:
        """Return the code of the category in each row, ``(rows,)``.

        Code 0 is for unknown or rare categories, the next codes are for `values`, and the last code
        is for missing values.
        """
        codes, found = raw.factors
        known = {value: code for code, value in enumerate(self.values, 1)}
        if self.values and found and isinstance(found[0], str) != self.is_text:
            kinds = ("text", "numbers") if isinstance(found[0], str) else ("numbers", "text")
            raise _changed(raw.label, *kinds)
        numbers = [known.get(value, 0) for value in found]
        return np.asarray([*numbers, len(self.values) + 1])[codes]


def numbers_of(pairs: Iterable[tuple[Column, RawColumn]]) -> tuple[list[str], list[np.ndarray]]:
    """Return the columns' numeric inputs, and for each of them the label of its column."""
    found = [(raw.label, values) for column, raw in pairs for values in column.numbers(raw)]
    return [label for label, _ in found], [values for _, values in found]


def check_finite(labels: Sequence[str], numbers: Sequence[np.ndarray]) -> None:
    """Raise ValueError for the first column with an infinite number."""
    for label, values in zip(labels, numbers, strict=True):
        if np.any(is_infinite := np.isinf(values)):
            raise ValueError(
                f"{label} has infinity in row {int(np.argmax(is_infinite))}: replace it, e.g. by "
                "NaN with missing_values='impute'."
            )


def _changed(label: str, now: str, earlier: str) -> ValueError:
    return ValueError(
        f"{label} has {now}, but had {earlier} in the fit: convert it, or fit again on such data."
    )


def _check_text(label: str, found: Sequence[Category], is_named: bool) -> None:
    """Raise ValueError for a mix of numbers and text, even if the numbers are stored as text."""
    texts = [value for value in found if isinstance(value, str)]
    if texts and len(texts) < len(found):
        raise text_and_numbers(label)
    if is_named or len(texts) <= FEW:
        return
    how = "errors='coerce'"
    to_number = f"to_numeric(column, {how})"
    if any("," in text and _is_number_with_commas(text) for text in texts):
        to_number = (
            "to_numeric(column.str.replace(',', '.')) if commas are decimal points, by "
            "pandas.to_numeric(column.str.replace(',', '')) if they separate thousands"
        )
    number = "numbers", _is_number_with_commas, to_number
    date = "dates", is_date, f"to_datetime(column, format='ISO8601', utc=True, {how})"
    for what, accepts, cure in (number, date):
        others = [text for text in texts if not accepts(text)]
        if len(others) < (1.0 - MANY) * len(texts):
            seen = f" and other text, e.g. {_shown(others[0])}" if others else ""
            raise ValueError(
                f"{label} has {what} stored as text{seen}: convert them, e.g. by pandas.{cure}, "
                "or name the column in categorical_features."
            )


def _is_number_with_commas(text: str) -> bool:
    """Whether a text is a number, possibly with decimal commas or commas between thousands."""
    return is_number(text.replace(",", ""))


def _shown(value: Category) -> str:
    """Return a category as text for a name or a message."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."


def _as_numbers(raw: RawColumn) -> np.ndarray:
    if raw.kind == "number":
        return raw.values
    codes, found = raw.factors  # The column is boolean or empty.
    return np.asarray([*found, np.nan], dtype=np.float64)[codes]


_PLURALS = {"number": "numbers", "date": "dates", "category": "categories", "bool": "bools"}
KINDS: dict[str, type[Column]] = {
    kind.kind: kind for kind in (NumberColumn, DateColumn, CategoryColumn, EmptyColumn)
}
