"""Text in a table: dates, numbers, and text that prevents a column from being read as either."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from mlp_xp._utils.categories import (
    WORDS,
    find_wrong_text,
    is_finite,
    means_missing,
    parse_date,
)
from mlp_xp._utils.sklearn_compat import warn_caller
from mlp_xp.estimators.checks.text_advice import cure_of
from mlp_xp.estimators.tables.problems import ColumnError
from mlp_xp.estimators.tables.reading import Category, RawColumn, text_and_numbers


def count_text(raw: RawColumn) -> dict[Category, int]:
    """Return the number of rows of each category of a column, without missing values."""
    codes, found = raw.factors
    counts = np.bincount(codes[codes >= 0], minlength=len(found)).tolist()
    return dict(zip(found, counts, strict=True))


def parse_text(raw: RawColumn) -> RawColumn:
    """Return a text column as dates or numbers if all of its text is, otherwise as text.

    Words such as "?" mean missing values. A few numbers stay text, since they may be codes; many
    become numbers, with a warning. Raise ColumnError if the text is mostly numbers or dates.
    """
    counts = count_text(raw)
    is_text = {value: isinstance(value, str) for value in counts}
    texts = {str(v): n for v, n in counts.items() if is_text[v] and not means_missing(str(v))}
    if not all(is_text.values()):
        if all(map(is_finite, texts)):
            return parse_numbers(raw)
        raise text_and_numbers(raw.label)
    if texts and all(parse_date(text.strip()) for text in texts):
        return parse_dates(raw)
    wrong = find_wrong_text(texts)
    if wrong is not None and wrong.is_certain:
        if wrong.form == "plain":
            declare = "cast(polars.Categorical)" if raw.is_polars else "astype('category')"
            warn_caller(
                f"{raw.label} {wrong.reason}, and is used as numbers. For categories, such as ZIP "
                f"codes, declare them, e.g. by column.{declare}."
            )
            return parse_numbers(raw)
        cure = cure_of(wrong, is_polars=raw.is_polars)
        cure = f"{cure}, or drop the column, or name it in categorical_features"
        raise ColumnError(raw.label, wrong.reason, cure)
    return drop_gaps(raw, ())


def drop_gaps(raw: RawColumn, categories: Collection[Category]) -> RawColumn:
    """Return a text column in which words such as "?" are missing, unless they are categories."""
    codes, found = raw.factors
    values = [None if means_missing(str(v)) and v not in categories else v for v in found]
    return replace(raw, values=np.asarray([*values, None])[codes]) if None in values else raw


def warn_of_values(raw: RawColumn, *, is_left_out: bool) -> None:
    """Warn if the categories of a text column are numbers with units or commas, or dates."""
    texts = {str(value): n for value, n in count_text(raw).items()}
    wrong = find_wrong_text(texts)
    if wrong is not None and wrong.is_unusual and len(texts) > 2:
        use = "and is left out" if is_left_out else f"but is used as {len(texts)} categories"
        cure = cure_of(wrong, is_polars=raw.is_polars)
        warn_caller(f"{raw.label} {wrong.reason}, {use}. To use the values, {cure}.")


def parse_dates(raw: RawColumn) -> RawColumn:
    """Return a text column as dates; raise ColumnError if other text is in it."""
    gap = np.datetime64("NaT", "us")
    values = _parse(raw, "dates", lambda value: parse_date(str(value).strip()), gap)
    return replace(raw, kind="date", values=values.astype("datetime64[us]"))


def parse_numbers(raw: RawColumn) -> RawColumn:
    """Return a text column as numbers; raise ColumnError if other text is in it."""
    values = _parse(raw, "numbers", lambda v: float(v) if is_finite(v) else None, math.nan)
    return replace(raw, kind="number", values=values)


def parse_words(raw: RawColumn) -> RawColumn:
    """Return a text column as 1 and 0 for words such as yes and no, and -1 for other text."""

    def parse(value: Category) -> float:
        return WORDS.get(value.strip().lower(), -1.0) if isinstance(value, str) else value

    return replace(raw, values=_parse(raw, "bools", parse, math.nan))


def words_of(values: Iterable[Category]) -> dict[Category, str]:
    """Return the categories that mean 1 and 0, such as yes and no, by these numbers."""
    words = {WORDS.get(str(value).lower()): str(value) for value in values}
    return {number: words[number] for number in (0.0, 1.0) if number in words}


def _parse(
    raw: RawColumn, plural: str, parse: Callable[[Category], Any], missing: Any
) -> np.ndarray[Any, Any]:
    """Return the values of a text column, each distinct text parsed once."""
    codes, found = raw.factors
    values = []
    for given in found:
        value = missing if isinstance(given, str) and means_missing(given) else parse(given)
        if value is None:
            raise changed(raw.label, "categories", plural, str(given))
        values.append(value)
    return np.asarray([*values, missing])[codes]


def changed(label: str, now: str, earlier: str, text: str = "") -> ColumnError:
    """Return the error for a column of another kind than in the fit."""
    what = f"text such as {text[:40]!r}" if text else "it"
    cure = f"convert {what}, or fit again on such data"
    return ColumnError(label, f"has {now}, but had {earlier} in the fit", cure)
