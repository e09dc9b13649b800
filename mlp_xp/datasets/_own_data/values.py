"""The values of a text file: numbers, booleans, dates, text and missing values."""

import math
import re
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from mlp_xp._utils.columns.categories import MISSING, WORDS
from mlp_xp._utils.columns.kinds import KINDS, RawColumn
from mlp_xp._utils.columns.problems import ColumnError
from mlp_xp._utils.columns.texts import parse_as
from mlp_xp.datasets._dataset import Column
from mlp_xp.datasets._own_data.csv_format import CsvFormat

NUMBERS = {"number", "flag"}  # The kinds of columns that contain numbers.
_LONGEST = max(map(len, MISSING))
# Texts with other characters are not numbers; the exception of `float` would take longer.
_MAY_BE_NUMBER = re.compile(r"[\s\d.,+_einfatyEINFATY-]*")


class Values:
    """The values of a column in a text file, stored as numbers until the first text.

    Distinct texts are parsed once per block of cells. ``column`` is the column that the model
    expects, if there is a model.
    """

    def __init__(self, column: Column | None, form: CsvFormat) -> None:
        self.numbers = array("d")
        kinds = {*KINDS} if column is None else {column.kind}
        self._may_be_words, self._may_be_dates = "flag" in kinds, "date" in kinds
        self._are_words = kinds == {"flag"}
        self.texts: list[str] | None = [] if not kinds & NUMBERS else None
        self._form, self._known = form, _Texts(form)

    def extend(self, cells: Sequence[str]) -> None:
        """Parse a block of cells, and append their values."""
        if self.texts is None:
            with suppress(ValueError):
                self.numbers.extend(array("d", map(self._form.number, cells)))
                return
            numbers = {text: parse(text, self._form.number) for text in {*cells}}
            with suppress(TypeError):  # A value is text.
                self.numbers.extend(array("d", map(numbers.__getitem__, cells)))  # type: ignore[arg-type]
                return
            distinct, codes = np.unique(self.numbers, return_inverse=True)
            texts = [_text(number, self._form) for number in distinct.tolist()]
            self.texts = [texts[code] for code in codes.tolist()]
        self.texts.extend(map(self._known.__getitem__, cells))

    def column(self, name: str) -> RawColumn:
        """Return the column: numbers, 1 and 0 for booleans, dates, or text."""
        if self.texts is None:
            return RawColumn(name, "number", np.asarray(self.numbers))
        different = {*self.texts}
        if self._are_words or (
            self._may_be_words and all(text.lower() in WORDS for text in different)
        ):
            numbers = {text: _word(text, self._form.number) for text in different}
            words = np.asarray(array("d", map(numbers.__getitem__, self.texts)))
            return RawColumn(name, "flag", words)
        values = np.empty(len(self.texts), dtype=object)
        values[:] = [text or None for text in self.texts]
        raw = RawColumn(name, "text", values)
        if self._may_be_dates:
            with suppress(ColumnError):
                return parse_as(raw, "date")
        return raw


class _Texts(dict[str, str]):
    """The parsed texts of a column; equal numbers give equal texts, missing values give ""."""

    def __init__(self, form: CsvFormat) -> None:
        super().__init__()
        self._form, self._number = form, form.number

    def __missing__(self, text: str) -> str:
        """Parse a new text."""
        value = parse(text, self._number)
        parsed = self[text] = value if isinstance(value, str) else _text(value, self._form)
        return parsed


def _text(value: float, form: CsvFormat) -> str:
    return "" if math.isnan(value) else form.text(value)


def parse(text: str, number: Callable[[str], float] = float) -> float | str:
    """Return the number in a text, NaN for a missing value, or else the text itself."""
    if _MAY_BE_NUMBER.fullmatch(text):
        try:
            return number(text)
        except ValueError:
            pass
    text = text.strip()
    return math.nan if len(text) <= _LONGEST and text.lower() in MISSING else text


def _word(text: str, number: Callable[[str], float]) -> float:
    """Return 1 for yes, 0 for no, a parsed number, or NaN for other text."""
    value = WORDS[text.lower()] if text.lower() in WORDS else parse(text, number)
    return value if isinstance(value, float) else math.nan
