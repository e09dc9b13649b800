"""The values of a text file: numbers, booleans, dates, text and missing values."""

import math
from array import array
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp.datasets._dataset import Column
from mlp_xp.datasets._own_data.columns import KINDS

NUMBERS = {"number", "flag"}  # The kinds of columns that contain numbers.
NAMES = {"na", "n/a", "null", "none"}  # These texts mean a missing value or name a class.
MISSING = {"", "#n/a", "<na>", "nan", "nat", "?"} | NAMES
WORDS = {"true": 1.0, "yes": 1.0, "1": 1.0, "false": 0.0, "no": 0.0, "0": 0.0, "": math.nan}


class Values:
    """The values of a column in a text file, stored as numbers until the first text.

    ``column`` is the column that the model expects, if there is a model.
    """

    def __init__(self, column: Column | None = None) -> None:
        self.numbers = array("d")
        kinds = {*KINDS} if column is None else {column.kind}
        self._may_be_words, self._may_be_dates = "flag" in kinds, "date" in kinds
        self.texts: list[str] | None = [] if not kinds & NUMBERS else None
        self._known: dict[str, str] = {}

    def add(self, text: str) -> None:
        """Parse a text, and append its value."""
        if self.texts is None:
            number = parse(text)
            if isinstance(number, float):
                self.numbers.append(number)
                return
            self.texts = [_as_text(number) for number in self.numbers]
        if text not in self._known:
            self._known[text] = _as_text(parse(text))
        self.texts.append(self._known[text])

    def array(self) -> NDArray[Any]:
        """Return the values as float64, with 1 and 0 for booleans, or as text or date objects."""
        if self.texts is None:
            return np.frombuffer(self.numbers, np.float64)
        different = {*self.texts}
        if self._may_be_words and {text.lower() for text in different} <= WORDS.keys():
            return np.asarray([WORDS[text.lower()] for text in self.texts])
        values: dict[str, Any] = {text: text or None for text in different}
        if self._may_be_dates:
            with suppress(ValueError):
                values = {text: _date(text) for text in different}
        column = np.empty(len(self.texts), dtype=object)
        column[:] = [values[text] for text in self.texts]
        return column


def parse(text: str) -> float | str:
    """Return the number in a text, NaN for a missing value, or else the text itself."""
    try:
        return float(text)
    except ValueError:
        text = text.strip()
        return math.nan if text.lower() in MISSING else text


def _date(text: str) -> datetime | None:
    """Parse an ISO 8601 date as UTC; return None for an empty text, raise ValueError if invalid."""
    if text and text[4:5] != "-":
        raise ValueError(text)
    date = datetime.fromisoformat(text) if text else None
    with suppress(OverflowError):  # In UTC, the year would be 0 or 10,000.
        date = date.astimezone(UTC) if date and date.tzinfo else date
    return date and date.replace(tzinfo=None)


def is_no_date(text: str) -> bool:
    try:
        return _date(text) is None
    except ValueError:
        return True


def is_no_number(text: str) -> bool:
    return isinstance(parse(text), str)


def _as_text(value: float | str) -> str:
    """Return a value as text; equal numbers give equal texts."""
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.15g}"
