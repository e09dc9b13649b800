"""Advice on text and missing values in X, for the error that X must be numeric."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from typing import Any, NamedTuple

from mlp_xp._utils.columns.categories import WrongText, find_wrong_text, means_missing

IMPUTE = (
    "set missing_values='impute', which replaces missing values by the median and adds an input "
    "that marks them, or fill them in"
)

# The maximum number of columns that an error names.
_NAMED = 3


class _Code(NamedTuple):
    """The code of a library that converts text: templates for a column, and ends of its name."""

    date: str
    day: str
    number: str
    lenient: str
    strip: str
    without_dots: str
    without_commas: str


_PANDAS = _Code(
    date="pandas.to_datetime({}, format='ISO8601', utc=True, errors='coerce')",
    day="pandas.to_datetime({}, dayfirst=True)",
    number="pandas.to_numeric({}{})",
    lenient=", errors='coerce'",
    strip=r".str.replace(r'[^\d.,-]', '', regex=True)",
    without_dots=".str.replace('.', '')",
    without_commas=".str.replace(',', '')",
)
_POLARS = _Code(
    date="{}.str.slice(0, 10).str.to_date('%Y-%m-%d', strict=False)",
    day="{}.str.to_date({!r})",
    number="{}.cast(polars.Float64{})",
    lenient=", strict=False",
    strip=r".str.replace_all(r'[^\d.,-]', '')",
    without_dots=".str.replace_all('.', '', literal=True)",
    without_commas=".str.replace_all(',', '')",
)
_POINT = ".str.replace(',', '.')"


def text_advice(X: Any, estimator: str) -> str:
    """Return advice for an error message on how to encode text in X."""
    numbers, texts, written = _text_columns(X)
    advice = [f"{estimator} requires numbers in X."]
    for name, wrong in [*written.items()][:_NAMED]:
        advice.append(f"X[{name!r}] {wrong.reason}: {cure_of(wrong, f'X[{name!r}]')}.")
    if numbers:
        column = f"X[{numbers[0]!r}]"
        advice.append(
            f"{_have(numbers)} text among numbers: {column} = pandas.to_numeric({column}, "
            "errors='coerce') turns the text into NaN, and missing_values='impute' fills it in."
        )
    if texts:
        has_gaps = bool(X.drop(columns=texts).isna().to_numpy().any())
        more = ", and missing_values='impute' for the missing numbers" if has_gaps else ""
        advice.append(f"{_have(texts)} text: set categorical_features='from_dtype'{more}.")
    elif not numbers and not written:
        advice.append(
            "Set categorical_features='from_dtype' for columns of text, and convert numbers with "
            "text among them, e.g. by pandas.to_numeric(column, errors='coerce')."
        )
    return " ".join(advice)


def _text_columns(X: Any) -> tuple[list[str], list[str], dict[str, WrongText]]:
    """Return a pandas frame's text columns: mostly numbers, other text, and unusual numbers."""
    numbers: list[str] = []
    texts: list[str] = []
    written: dict[str, WrongText] = {}
    is_frame = hasattr(X, "columns") and hasattr(X, "items")
    # The advice names columns, so their names must be text.
    if not is_frame or not all(isinstance(name, str) for name in X.columns):
        return numbers, texts, written
    # Pandas is already imported, since X is a pandas frame.
    to_numeric = importlib.import_module("pandas").to_numeric

    def is_text(values: Any) -> Any:
        return to_numeric(values.astype(object), errors="coerce").isna()

    for name, column in X.items():
        if column.dtype.kind not in "biufcmM":
            values = column.dropna()
            words = Counter(v for v in values if isinstance(v, str) and not means_missing(v))
            wrong = find_wrong_text(words)
            if wrong is not None and wrong.is_unusual:
                written[name] = wrong
            elif is_text(values.head(1000)).mean() >= 0.5:
                texts.append(name)
            elif is_text(values).any():
                numbers.append(name)
    return numbers, texts, written


def _have(names: list[str]) -> str:
    """Return the subject and verb of a sentence, e.g. "X['a'], X['b'] and 2 more have"."""
    shown = [f"X[{name!r}]" for name in names[:_NAMED]]
    shown += [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    *others, last = shown
    return f"{', '.join(others)} and {last} have" if others else f"{last} has"


def cure_of(wrong: WrongText, column: str = "column", *, is_polars: bool = False) -> str:
    """Return how to convert a column with pandas or polars."""
    if wrong.form == "large":
        return "correct it"
    conversions = _conversions(wrong, column, _POLARS if is_polars else _PANDAS)
    if wrong.form not in ("comma", "unit"):
        return f"convert them, e.g. by {conversions[0]}"
    if len(conversions) == 1:
        return f"convert them by {conversions[0]}"
    return (
        f"convert them by {conversions[0]} if commas are decimal points, or by {conversions[1]} if "
        "they separate thousands"
    )


def _conversions(wrong: WrongText, column: str, code: _Code) -> list[str]:
    """Return the code that converts a column, for each meaning of its commas."""
    if wrong.form == "date":
        return [code.date.format(column)]
    if wrong.form == "day":
        return [code.day.format(column, _day_format(wrong.example))]
    is_number = wrong.form in ("comma", "unit")
    ends = {
        "": [""],
        "decimal": [code.without_dots + _POINT],
        "thousands": [code.without_commas],
        "unknown": [_POINT, code.without_commas],
    }[wrong.commas if is_number else ""]
    errors = code.lenient if wrong.has_others or not is_number else ""
    stripped = column + code.strip * (wrong.form == "unit")
    return [code.number.format(stripped + end, errors) for end in ends]


def _day_format(example: str) -> str:
    """Return the format of a date such as 24.12.2026."""
    first, separator, _, _, last = re.split(r"(\D)", example)[:5]
    order = "Ymd" if len(first) == 4 else "dmY" if len(last) == 4 else "dmy"
    return separator.join(f"%{part}" for part in order)
