"""Rules for text columns: detect numbers and dates, and select useful categories."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

FEW = 50  # Numbers in a text column with at most this many distinct values may be categories.
MANY = 0.9  # A text column with a larger fraction of numbers or distinct values is not categorical.
_MIN_ROWS, _ROWS_A_CATEGORY = 5, 100
_MIN_DISTINCT = 10  # In fewer rows, categories may all differ by chance.
_SHOWN = 40  # The maximum length of text in a message.

NAMES = {"na", "n/a", "null", "none"}  # Either a missing value or a category.
MISSING = {"", "#n/a", "<na>", "nan", "nat", "?"} | NAMES
WORDS = {"true": 1.0, "yes": 1.0, "1": 1.0, "false": 0.0, "no": 0.0, "0": 0.0, "": math.nan}

_Read = TypeVar("_Read")

# A number as people write it: currency, sign, thousands, fraction, unit.
_NUMBER = re.compile(
    r"[-+]?(?:[$€£¥]|CHF|EUR|GBP|USD)?\s*[-+]?(?=[.,]?\d)"
    r"(?:\d{1,3}(?:[\s'\u2019]\d{3})+|\d{1,3}(?:,\d{3})+|\d{1,3}(?:\.\d{3})+|\d*)"
    r"(?:[.,]\d+)?(?:e[-+]?\d+)?\s*([^\s\d.,+-]{0,7})",
    re.IGNORECASE,
)
# A date that is not in ISO 8601 format, perhaps with a time.
_OTHER_DATE = re.compile(
    r"(\d{1,2}([./-])\d{1,2}\2\d{4}|\d{4}[./]\d{1,2}[./]\d{1,2}|\d{1,2}/\d{1,2}/\d{2})([ T,].*)?"
)


def least_rows(n_rows: int) -> int:
    """Return the number of rows below which a category is rare: 5, or 1 % in small tables."""
    return max(1, min(_MIN_ROWS, -(-n_rows // _ROWS_A_CATEGORY)))


def parse_date(text: str) -> datetime | None:
    """Return an ISO 8601 date or date and time in UTC, or None if the text is not a date."""
    if text[4:5] != "-":
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        return date
    try:
        return date.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # In UTC, the year would be 0 or 10000.
        return date.replace(tzinfo=None)


def is_number(text: str | bytes) -> bool:
    """Whether text is a number, including infinity and NaN."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_finite(value: Any) -> bool:
    """Whether a value, or its text, is a finite number."""
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def means_missing(text: str) -> bool:
    """Whether text means a missing value."""
    return text.strip().lower() in MISSING


class WrongText(NamedTuple):
    """Text that prevents a column from being read as numbers or dates.

    ``form`` is "text" or "date" (other text among numbers or dates), "day" (dates that are not in
    ISO 8601 format), "plain" (text of numbers only), "large" (too large for float64), "comma", or
    "unit" (also signs and spaces). ``commas`` is "decimal", "thousands", "unknown", or "" if there
    are none. ``is_certain`` is false if the column may also be categorical. ``has_others`` is true
    if there is other text among the numbers.
    """

    form: str
    example: str
    commas: str
    is_certain: bool
    has_others: bool = False

    @property
    def is_unusual(self) -> bool:
        """Whether the text is numbers with units, signs or commas, or dates in another format."""
        return self.form in ("comma", "unit", "day")

    @property
    def reason(self) -> str:
        """The part of the error message that follows the column's name."""
        shown = repr(self.example if len(self.example) <= _SHOWN else f"{self.example[:_SHOWN]}...")
        if self.form == "plain":
            return f"has numbers stored as text, e.g. {shown}"
        if self.form == "large":
            return f"has {shown}, a {len(self.example)}-digit number too large for float64"
        if self.form == "day":
            return f"has {shown}, which is not an ISO 8601 date"
        return f"has {shown} among its {'dates' if self.form == 'date' else 'numbers'}"


def find_wrong_text(counts: Mapping[str, int]) -> WrongText | None:
    """Return the text to correct if nearly all of the column is numbers or dates, else None.

    Parameters
    ----------
    counts : mapping
        The number of rows with each text, excluding missing values.
    """
    n_rows = sum(counts.values())
    is_certain = len(counts) > FEW or differ_in_nearly_each_row(len(counts), n_rows)
    units = _read_nearly_all(counts, _unit)
    if units:
        usual, _ = next(iter(Counter(filter(None, units.values())).most_common(1)), ("", 0))
        numbers = {text: text if unit in ("", usual) else None for text, unit in units.items()}
        if _read_nearly_all(counts, numbers.get) is not None:
            return _wrong_number(numbers, is_certain=is_certain)
    dates = _read_nearly_all(counts, parse_date)
    if dates and None in dates.values():
        example = next(text for text, date in dates.items() if date is None)
        return WrongText("date", example, "", is_certain)
    days = None if dates else _read_nearly_all(counts, _OTHER_DATE.fullmatch)
    return WrongText("day", next(iter(days)), "", is_certain=False) if days else None


def _wrong_number(numbers: Mapping[str, str | None], *, is_certain: bool) -> WrongText:
    """Return the text to correct; ``numbers`` maps text that is not a number to None."""
    others = [text for text, number in numbers.items() if number is None]
    unusual = [text for text in numbers if numbers[text] is not None and not is_finite(text)]
    large = [text for text in unusual if text.lstrip("+-").isdecimal()]
    has_digits_only = all(is_finite(text.replace(",", "").replace(".", "")) for text in unusual)
    form = "large" if large else "comma" if has_digits_only else "unit"
    form = form if unusual else "text" if others else "plain"
    example = [*large, *others, *unusual, *numbers][0]
    return WrongText(form, example, _commas(unusual), is_certain, bool(others))


def _read_nearly_all(
    counts: Mapping[str, int], read: Callable[[str], _Read | None]
) -> dict[str, _Read | None] | None:
    """Return the value of each text, or None if too many rows cannot be read."""
    n_left, values = (1 - MANY) * sum(counts.values()), {}
    for text, count in counts.items():
        value = values[text] = read(text)
        n_left -= count if value is None else 0
        if n_left <= 0:
            return None
    return values


def _unit(text: str) -> str | None:
    """Return the unit of a number, "" if it has none, or None if the text is not a number."""
    found = _NUMBER.fullmatch(text.strip())
    return found[1] if found else "" if is_finite(text) else None


def _commas(numbers: Iterable[str]) -> str:
    """Return the role of commas in numbers: "decimal", "thousands", "unknown", or "" for none."""
    with_commas = [text for text in numbers if "," in text]
    if any(0 <= text.find(".") < text.find(",") for text in with_commas):
        return "decimal"
    if any(text.find(",") < text.find(".") for text in with_commas):
        return "thousands"
    return "unknown" if with_commas else ""


def differ_in_nearly_each_row(n_values: int, n_rows: int) -> bool:
    """Whether nearly every row has a different value, so the text column is not categorical."""
    return n_values > max(_MIN_DISTINCT, MANY * n_rows)


def judge_categories(
    counts: Mapping[Any, int], n_rows: int, everywhere: Mapping[Any, int] | None = None
) -> tuple[bool, str]:
    """Return whether to drop a text column, and the reason or a note for the user, or "".

    Parameters
    ----------
    counts : mapping
        The number of training rows with each text, excluding missing values.
    n_rows : int
        The number of training rows.
    everywhere : mapping, optional
        The number of training and test rows with each text; by default `counts`.
    """
    everywhere = counts if everywhere is None else everywhere
    n_values, n_filled = len(everywhere), sum(everywhere.values())
    has_missing = sum(counts.values()) < n_rows
    least = least_rows(n_rows)
    n_used = sum(count >= least for count in counts.values())
    has_rare = n_used < len(counts)
    if len(counts) == 1 and not has_missing:
        return True, f"it is {str(next(iter(counts)))[:_SHOWN]!r} in each row"
    is_unique = differ_in_nearly_each_row(n_values, n_filled)
    if is_unique or has_missing + has_rare + n_used < 2:
        return True, f"text, with {n_values:,} values in {n_filled:,} rows"
    if n_used == n_values:
        return False, ""
    if n_used == 0:
        return False, "all values are rare, so the only input is whether one is missing"
    return False, f"{n_used} of {n_values:,} values are inputs; the others are too rare"
