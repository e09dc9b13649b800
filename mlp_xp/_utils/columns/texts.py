"""Parse text columns as numbers, dates or categories."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from mlp_xp._utils.columns.categories import WORDS, means_missing
from mlp_xp._utils.columns.kinds import KINDS, Category, CodedColumn, RawColumn
from mlp_xp._utils.columns.problems import ColumnError


def parse_as(raw: RawColumn, kind: str) -> RawColumn:
    """Convert a text column to another kind; raise ColumnError if it contains other text."""
    found, known = raw.factors[1], KINDS[kind]
    values = []
    for given in found:  # Each distinct text is parsed once.
        is_gap = isinstance(given, str) and means_missing(given)
        value = known.missing if is_gap else known.parse(given)
        if value is None:
            raise changed(raw.label, KINDS["text"].plural, known.plural, str(given))
        values.append(value)
    return raw.recode([*values, known.missing], kind)


def drop_gaps(raw: RawColumn, categories: Collection[Category]) -> RawColumn:
    """Replace words such as "?" in a text column by missing values, unless they are categories."""
    codes, found = raw.factors
    kept = [v for v in found if v in categories or not means_missing(str(v))]
    if len(kept) == len(found):
        return raw
    places = {value: place for place, value in enumerate(kept)}
    values = np.asarray([*(places.get(v, -1) for v in found), -1], np.int32)[codes]
    form = raw.is_declared, raw.error, raw.is_polars
    return CodedColumn(raw.label, raw.kind, values, *form, kept)


def words_of(values: Iterable[Category]) -> dict[Category, str]:
    """Map 1 and 0 to the categories that mean them, such as yes and no."""
    words = {WORDS.get(str(value).lower()): str(value) for value in values}
    return {number: words[number] for number in (0.0, 1.0) if number in words}


def changed(label: str, now: str, earlier: str, text: str = "") -> ColumnError:
    """Return the error for a column whose kind has changed since the fit."""
    what = f"text such as {text[:40]!r}" if text else "it"
    cure = f"convert {what}, or refit on such data"
    return ColumnError(label, f"has {now}, but had {earlier} during fit", cure)


def text_and_numbers(label: str) -> ColumnError:
    """Return the error for a column that mixes text and numbers."""
    cure = "convert it to one of them, e.g. by pandas.to_numeric(column, errors='coerce') or "
    return ColumnError(label, "has text and numbers", f"{cure}column.astype(str)")
