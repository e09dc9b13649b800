"""The values of a text file: numbers, booleans, dates, text and missing values."""

import math
import re
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.categories import MISSING, WORDS, parse_date
from mlp_xp.datasets._dataset import Column
from mlp_xp.datasets._own_data.columns import KINDS

NUMBERS = {"number", "flag"}  # The kinds of columns that contain numbers.
_LONGEST = max(map(len, MISSING))
# Texts with other characters are not numbers; the exception of `float` would take longer.
_MAY_BE_NUMBER = re.compile(r"[\s\d.,+_einfatyEINFATY-]*")


class Values:
    """The values of a column in a text file, stored as numbers until the first text.

    Distinct texts are parsed once per block of cells. ``column`` is the column that the model
    expects, if there is a model.
    """

    def __init__(
        self, column: Column | None = None, number: Callable[[str], float] = float
    ) -> None:
        self.numbers = array("d")
        kinds = {*KINDS} if column is None else {column.kind}
        self._may_be_words, self._may_be_dates = "flag" in kinds, "date" in kinds
        self._are_words = kinds == {"flag"}
        self.texts: list[str] | None = [] if not kinds & NUMBERS else None
        self._number, self._known = number, _Texts(number)

    def extend(self, cells: Sequence[str]) -> None:
        """Parse a block of cells, and append their values."""
        if self.texts is None:
            with suppress(ValueError):
                self.numbers.extend(array("d", map(self._number, cells)))
                return
            numbers = {text: parse(text, self._number) for text in {*cells}}
            with suppress(TypeError):  # A value is text.
                self.numbers.extend(array("d", map(numbers.__getitem__, cells)))  # type: ignore[arg-type]
                return
            distinct, codes = np.unique(self.numbers, return_inverse=True)
            texts = [_as_text(number) for number in distinct.tolist()]
            self.texts = [texts[code] for code in codes.tolist()]
        self.texts.extend(map(self._known.__getitem__, cells))

    def array(self) -> NDArray[Any]:
        """Return the values as float64, with 1 and 0 for booleans, or as text or date objects."""
        if self.texts is None:
            return np.asarray(self.numbers)
        different = {*self.texts}
        if self._are_words or (
            self._may_be_words and all(text.lower() in WORDS for text in different)
        ):
            numbers = {text: _word(text) for text in different}
            return np.asarray(array("d", map(numbers.__getitem__, self.texts)))
        column = np.empty(len(self.texts), dtype=object)
        if self._may_be_dates:
            dates = {text: parse_date(text) for text in different}
            if all(date or not text for text, date in dates.items()):
                column[:] = [*map(dates.__getitem__, self.texts)]
                return column
        column[:] = [text or None for text in self.texts]
        return column


class _Texts(dict[str, str]):
    """The parsed texts of a column; equal numbers give equal texts."""

    def __init__(self, number: Callable[[str], float]) -> None:
        super().__init__()
        self._number = number

    def __missing__(self, text: str) -> str:
        """Parse a new text."""
        parsed = self[text] = _as_text(parse(text, self._number))
        return parsed


def parse(text: str, number: Callable[[str], float] = float) -> float | str:
    """Return the number in a text, NaN for a missing value, or else the text itself."""
    if _MAY_BE_NUMBER.fullmatch(text):
        try:
            return number(text)
        except ValueError:
            pass
    text = text.strip()
    return math.nan if len(text) <= _LONGEST and text.lower() in MISSING else text


def is_no_date(text: str) -> bool:
    return parse_date(text) is None


def is_no_number(text: str) -> bool:
    return isinstance(parse(text), str)


def _word(text: str) -> float:
    """Return 1 for yes, 0 for no, a number, or NaN for other text, which a model does not know."""
    number = WORDS[text.lower()] if text.lower() in WORDS else parse(text)
    return number if isinstance(number, float) else math.nan


def _as_text(value: float | str) -> str:
    """Return a value as text; equal numbers give equal texts."""
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.15g}"
