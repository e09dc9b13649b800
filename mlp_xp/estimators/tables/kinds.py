"""The encodings of columns: each learns from training data, checks new data, and encodes inputs.

To add an encoding, add a class, list it in `KINDS`, and choose it in `learn_column`. The kinds of
values before encoding are in `mlp_xp._utils.columns.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np

from mlp_xp._utils.columns.categories import least_rows
from mlp_xp._utils.columns.kinds import KINDS as KINDS_OF_VALUES
from mlp_xp._utils.columns.kinds import Category, RawColumn
from mlp_xp._utils.columns.problems import ColumnError, Problems
from mlp_xp._utils.columns.texts import changed, drop_gaps, parse_as, text_and_numbers, words_of
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.signals.forks import cached_property
from mlp_xp.estimators.checks.text_advice import IMPUTE
from mlp_xp.estimators.tables.distribution import (
    ColumnDistribution,
    Observed,
    learn_categories,
    learn_numbers,
)
from mlp_xp.estimators.tables.monotone import refuse_constraint

_SHOWN = 40
_NO_INFINITY = "replace it, e.g. by NaN with missing_values='impute'"
_DAY, _SECOND = np.timedelta64(1, "D"), np.timedelta64(1, "s")


@dataclass(frozen=True)
class Column:
    """A column learned from training data; ``has_missing`` is true if values were missing there.

    ``direction`` is the constraint of `monotonic_cst`: 1, -1 or 0.
    """

    name: str
    has_missing: bool
    direction: int = 0

    kind: ClassVar[str]  # The name in saved models.
    reads: ClassVar[str]  # The kind of the values that it encodes.

    def read(self, raw: RawColumn) -> RawColumn:
        """Return a column of new data as the kind of the fit; raise ColumnError if impossible."""
        raw.raise_error()
        if raw.kind != self.reads and not raw.is_empty:
            now, earlier = (KINDS_OF_VALUES[kind].plural for kind in (raw.kind, self.reads))
            raise changed(raw.label, now, earlier)
        return raw

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

    def distribution(self, raw: RawColumn) -> ColumnDistribution | None:
        """Return the distribution of the training data; None if there is no value."""
        return None

    def count(self, raw: RawColumn, known: ColumnDistribution) -> Observed:
        """Count new values in the bins of the column's distribution."""
        raise NotImplementedError

    def shown(self, number: float) -> Any:
        """Return a number of the distribution as a value of the column."""
        return number

    def to_json(self) -> dict[str, Any]:
        """Return the kind and fields as JSON values."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class EmptyColumn(Column):
    """A column without values in the fit; it is not an input of the network."""

    kind = "empty"

    def read(self, raw: RawColumn) -> RawColumn:
        """Ignore the values, which are not an input."""
        return raw


@dataclass(frozen=True)
class OrderedColumn(Column):
    """A column whose values are on a line of numbers."""

    def on_line(self, raw: RawColumn) -> np.ndarray:
        """Return the place of each value, ``(rows,)``, with NaN for missing values."""
        return _as_numbers(raw)

    def distribution(self, raw: RawColumn) -> ColumnDistribution:
        """Return the deciles of the training data, and the range."""
        return learn_numbers(self.on_line(raw))

    def count(self, raw: RawColumn, known: ColumnDistribution) -> Observed:
        """Count new values between the deciles, and outside the range."""
        return known.count_numbers(self.on_line(raw))


@dataclass(frozen=True)
class NumberColumn(OrderedColumn):
    """A column of numbers."""

    kind = reads = "number"

    @classmethod
    def learn(cls, name: str, raw: RawColumn, direction: int) -> Self:
        """Create the column from the training data."""
        return cls(name, bool(np.any(np.isnan(_as_numbers(raw)))), direction)

    def read(self, raw: RawColumn) -> RawColumn:
        """Return the column; text must be numbers."""
        if raw.kind == "text" and raw.error is None:
            return parse_as(raw, "number")
        return raw if raw.kind == "flag" else super().read(raw)

    @property
    def number_names(self) -> tuple[str, ...]:
        """The name of the column."""
        return (self.name,)

    def numbers(self, raw: RawColumn) -> list[np.ndarray]:
        """Return the numbers unchanged."""
        return [_as_numbers(raw)]


@dataclass(frozen=True)
class DateColumn(OrderedColumn):
    """A column of dates, as year, day of year, weekday and, if ``has_time``, second of day.

    With a constraint, a date is a single number, the days since 1970: the parts of a later date may
    be smaller.
    """

    has_time: bool = False

    kind = reads = "date"

    @classmethod
    def learn(cls, name: str, raw: RawColumn, direction: int) -> Self:
        """Create the column from the training data."""
        there = raw.values[~np.isnat(raw.values)]
        has_time = bool(np.any(there != there.astype("datetime64[D]")))
        return cls(name, len(there) < len(raw.values), direction, has_time)

    def read(self, raw: RawColumn) -> RawColumn:
        """Return the column; text must be ISO 8601 dates."""
        is_text = raw.kind == "text" and raw.error is None
        return parse_as(raw, "date") if is_text else super().read(raw)

    @property
    def number_names(self) -> tuple[str, ...]:
        """The names of the parts of a date."""
        parts = ["year", "day of year", "weekday", *(["second of day"] if self.has_time else [])]
        if self.direction:
            parts = ["days since 1970"]
        return tuple(f"{self.name}: {part}" for part in parts)

    def on_line(self, raw: RawColumn) -> np.ndarray:
        """Return the days since 1970."""
        if raw.kind != self.kind:
            return np.full(len(raw.values), np.nan)
        days = raw.values.astype("datetime64[D]")
        line: np.ndarray = days.astype(np.float64) + (raw.values - days) / _SECOND / 86400.0
        return np.where(np.isnat(raw.values), np.nan, line)

    def shown(self, number: float) -> str:
        """Return the ISO 8601 text of a date, given its days since 1970."""
        date = np.datetime64(round(number * 86400), "s")
        return str(date if self.has_time else date.astype("datetime64[D]"))

    def numbers(self, raw: RawColumn) -> list[np.ndarray]:
        """Return the parts of the dates; Monday and January 1 are 0."""
        if raw.kind != self.kind:
            return [np.full(len(raw.values), np.nan)] * len(self.number_names)
        if self.direction:
            return [self.on_line(raw)]
        days, years = (raw.values.astype(f"datetime64[{unit}]") for unit in "DY")
        year, day = years.astype(np.float64) + 1970.0, (days - years.astype("datetime64[D]")) / _DAY
        number, second = days.astype(np.float64), (raw.values - days) / _SECOND
        parts = [year, day, (number + 3.0) % 7.0]  # January 1, 1970, was a Thursday.
        if self.has_time:
            parts.append(second)
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

    kind, reads = "category", "text"

    @classmethod
    def learn(cls, name: str, raw: RawColumn, max_one_hot: float) -> Self:
        """Create the column from the training data.

        A column with more than ``max_one_hot`` categories is embedded.
        """
        codes, found = raw.factors
        if len({isinstance(value, str) for value in found}) > 1:
            raise text_and_numbers(raw.label)
        known = codes[codes >= 0]
        counts = np.bincount(known, minlength=len(found))
        is_common = counts >= least_rows(len(codes))
        kept = tuple(sorted(found[i] for i in np.flatnonzero(is_common).tolist()))
        has_missing, has_rare = len(known) < len(codes), len(kept) < len(found)
        return cls(name, has_missing, 0, kept, has_rare, len(kept) > max_one_hot)

    def read(self, raw: RawColumn) -> RawColumn:
        """Return the column; dates must not appear, nor numbers if the categories were text.

        Text such as yes and no is the same as bools; other text is then an unknown category.
        """
        raw.raise_error()
        if raw.kind == "date":
            return super().read(raw)
        found = raw.factors[1]
        are_text = {isinstance(value, str) for value in found}
        if not self.values or are_text <= {self.is_text}:
            return drop_gaps(raw, self.values) if self.is_text else raw
        if not self.is_text and {*self.values} <= {0.0, 1.0}:
            return parse_as(raw, "flag")
        if raw.kind == "flag" and (words := words_of(self.values)):
            return raw.recode([*map(words.get, found), None], raw.kind)
        if len(are_text) > 1:
            raise text_and_numbers(raw.label)
        kinds = ("numbers", "categories") if self.is_text else ("text", "numbers")
        raise changed(raw.label, *kinds)

    def distribution(self, raw: RawColumn) -> ColumnDistribution:
        """Return the number of rows of the most frequent categories, and of others."""
        return learn_categories(raw.counts, len(raw.values), self.values)

    def count(self, raw: RawColumn, known: ColumnDistribution) -> Observed:
        """Count the rows of each category; unknown categories are those that are not inputs."""
        return known.count_categories(raw.counts, len(raw.values), self.values)

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
        numbers = [known.get(value, 0) for value in found]
        return np.asarray([*numbers, len(self.values) + 1])[codes]


def learn_column(
    estimator: Any, name: str, raw: RawColumn, *, is_named: bool, direction: int
) -> Column:
    """Return a column of the training data; raise ColumnError if it cannot be an input."""
    if raw.is_empty:  # Accept empty columns, since cross-validation folds may have them.
        if raw.kind == "number" and estimator.missing_values == "error":
            raise ColumnError(raw.label, "is missing (NaN) in row 0", IMPUTE)
        return EmptyColumn(name, True)
    if raw.kind == "date":
        if is_named:
            parts = "since dates become year, day of year and weekday"
            cure = f"leave it out of categorical_features, {parts}"
            raise ColumnError(raw.label, "has dates", cure)
        return DateColumn.learn(name, raw, direction)
    is_automatic = isinstance(estimator.categorical_features, str)
    if direction and (is_named or raw.kind == "text"):
        refuse_constraint(raw.label)
    if is_named or (is_automatic and raw.kind in ("text", "flag") and not direction):
        return CategoryColumn.learn(name, raw, estimator.max_one_hot)
    if raw.kind == "text":
        cure = "set categorical_features='from_dtype', or name the columns in categorical_features"
        raise ColumnError(raw.label, "has categories", cure)
    return NumberColumn.learn(name, raw, direction)


def numbers_of(pairs: Iterable[tuple[Column, RawColumn]]) -> tuple[list[str], list[np.ndarray]]:
    """Return the columns' numeric inputs, and for each of them the label of its column."""
    found = [(raw.label, values) for column, raw in pairs for values in column.numbers(raw)]
    return [label for label, _ in found], [values for _, values in found]


def check_finite(labels: Sequence[str], numbers: Sequence[np.ndarray]) -> None:
    """Raise ValueError if there are infinite numbers."""
    _check(labels, numbers, np.isinf, "has infinity", _NO_INFINITY)


def check_no_gaps(labels: Sequence[str], numbers: Sequence[np.ndarray]) -> None:
    """Raise ValueError if numbers are missing."""
    _check(labels, numbers, np.isnan, "is missing (NaN)", IMPUTE)


def _check(
    labels: Sequence[str],
    numbers: Sequence[np.ndarray],
    is_wrong: Callable[[np.ndarray], np.ndarray],
    what: str,
    cure: str,
) -> None:
    problems = Problems()
    for label, values in dict(zip(labels, numbers, strict=True)).items():
        if np.any(wrong := is_wrong(values)):
            with problems.collect():
                raise ColumnError(label, f"{what} in row {int(np.argmax(wrong))}", cure)
    problems.raise_error()


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


KINDS: dict[str, type[Column]] = {
    kind.kind: kind for kind in (NumberColumn, DateColumn, CategoryColumn, EmptyColumn)
}
