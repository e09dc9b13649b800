"""CSV files: the encoding, separator and decimal point, and the values of each column."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.categories import MISSING, NAMES
from mlp_xp.datasets._dataset import DatasetError
from mlp_xp.datasets._own_data.selection import Table, Wanted, choose, make_table, numbered
from mlp_xp.datasets._own_data.values import Values, parse

_SEPARATORS = ";\t,|"  # In order of preference, because numbers and names may have commas.
_MAY_NAME = {"", *NAMES}  # Texts that name a column in the first line, e.g. Na for sodium.
_CELLS = 1 << 12  # Parsed at once: larger blocks of rows leave the caches.
_HEAD, _BLOCK = 4096, 1 << 16  # Bytes to look at for UTF-16, and to decode at once.
_MARKS = {  # UTF-32 comes first, because its mark begins with the mark of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WESTERN = "cp1252"  # A superset of the printable characters of Latin-1.
_NOTE = "read as cp1252 (Western European), not UTF-8: to read it as another, set --encoding"


@dataclass(frozen=True)
class CsvFormat:
    """How a CSV file is written; the separator and the encoding are recognized if None.

    Raise DatasetError for invalid values.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        """Check the values, since they may come from a user or from a damaged run folder."""
        separator, decimal, encoding = self.separator, self.decimal, self.encoding
        is_one = isinstance(separator, str) and len(separator) == 1 and separator not in '"\r\n'
        if separator is not None and not is_one:
            raise DatasetError(
                f"--separator must be one character, such as ';' or '\\t', got {separator!r}"
            )
        if decimal not in (None, ".", ","):
            raise DatasetError(f"--decimal must be '.' or ',', got {decimal!r}")
        if separator is not None and separator == decimal:
            raise DatasetError(
                f"--separator and --decimal must differ, got {separator!r} for both: columns are "
                "usually separated by ';' if commas are decimal points"
            )
        if encoding is not None:
            try:
                " ".encode(encoding)
            except (LookupError, TypeError, ValueError) as error:
                raise DatasetError(
                    f"unknown encoding {encoding!r}: set --encoding to utf-8, utf-16, cp1252 "
                    "(Western European), cp1250 (Central European) or another one that Python knows"
                ) from error

    def refuse(self, path: Path) -> None:
        """Raise DatasetError if a value is set, because the path is not a CSV file."""
        for name, value in vars(self).items():
            if value is not None:
                raise DatasetError(f"{path}: leave out --{name} {value}, which is for .csv files")

    @property
    def number(self) -> Callable[[str], float]:
        """The function that parses a number, or raises ValueError."""
        return number_with_comma if self.decimal == "," else float

    def separator_of(self, first_line: str) -> str:
        """Return the separator, recognized from the first line if it is not set."""
        if self.separator is not None:
            return self.separator
        unquoted = re.sub('"[^"]*"', "", first_line)
        # The most frequent one; without any, the last one, which is a comma if it may be.
        choices = [s for s in _SEPARATORS if s != self.decimal]
        found = max(choices, key=unquoted.count)
        return found if found in unquoted else "," if "," in choices else ";"


def read_csv(path: Path, wanted: Wanted, form: CsvFormat) -> Table:
    """Read a CSV file with or without a line of names."""
    encoding, note = (form.encoding, "") if form.encoding else _recognize(path)
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"  # Excel writes a byte order mark.
    with path.open(newline="", encoding=encoding) as file:
        separator = form.separator_of(file.readline(1 << 20))
        file.seek(0)
        rows = csv.reader(file, delimiter=separator, strict=True)
        first = next(rows, [])
        if not first:
            raise DatasetError(f"{path} is empty: write a line of names, then a line per sample")
        has_names = _has_names(first, wanted, form)
        names = [name.strip() for name in first] if has_names else numbered(len(first))
        choice = choose(path, names, wanted)
        known = wanted.expected(len(choice.features))
        columns = [
            (i, Values(column, form.number))
            for i, column in zip(choice.features, known, strict=True)
        ]
        if choice.target is not None:
            _check_varies(path, rows if has_names else chain([first], rows), names, choice.target)
            file.seek(0)
            rows = csv.reader(file, delimiter=separator, strict=True)
            first = next(rows)
        y: list[str] = []
        lines = _lines(path, rows, [] if has_names else [first], names)
        while block := list(islice(lines, max(8, _CELLS // len(names)))):
            cells = [*zip(*block, strict=True)]
            for i, values in columns:
                values.extend(cells[i])
            if choice.target is not None:
                y += map(str.strip, cells[choice.target])
    labels, notes = _labels(y, form)
    found = [values.array() for _, values in columns]
    table = make_table(path, names, choice, wanted, found, labels)
    return table._replace(notes=(*notes, *([note] if note else [])))


def _recognize(path: Path) -> tuple[str, str]:
    """Return the encoding of a file, and a note for the user if it is not Unicode."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        for mark, encoding in _MARKS.items():
            if head.startswith(mark):
                return encoding, ""
        if 0 in head:  # The zeros of UTF-16 are at even places if the high byte comes first.
            is_high_first = head[::2].count(0) > head[1::2].count(0)
            return ("utf-16-be" if is_high_first else "utf-16-le"), ""
        decoder, is_ascii, n_lines = codecs.getincrementaldecoder("utf-8")(), True, 1
        file.seek(0)
        while True:
            block = file.read(_BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                start, wrong = bytes(error.object[: error.start]), error.object[error.start]
                if is_ascii and start.isascii():
                    return _WESTERN, _NOTE
                raise DatasetError(
                    f"{path}, line {n_lines + start.count(10)} has the byte 0x{wrong:02x}, which "
                    "is not UTF-8: correct it, or set --encoding to the encoding of the file"
                ) from error
            if not block:
                return "utf-8", ""
            is_ascii, n_lines = is_ascii and text.isascii(), n_lines + text.count("\n")


def _has_names(first: list[str], wanted: Wanted, form: CsvFormat) -> bool:
    """Whether the first line contains the names of the columns."""
    signs = {"target", "label", "class", wanted.target and wanted.target.lower()}
    if signs & {name.strip().lower() for name in first}:
        return True
    expected = {column.name for column in wanted.columns or ()}
    if expected - {*numbered(len(first))} and expected <= {name.strip() for name in first}:
        return True  # Names may be numbers, e.g. years.
    return all(
        isinstance(parse(name, form.number), str) or name.strip().lower() in _MAY_NAME
        for name in first
    )


def _lines(path: Path, rows: Any, first: list[list[str]], names: list[str]) -> Iterator[list[str]]:
    """Yield the lines with one cell per name; ``rows`` is a reader of the lines after the first."""
    n_cells = len(names)
    n_named = max((i + 1 for i, name in enumerate(names) if name), default=0)
    for row in chain(first, rows):
        if len(row) == n_cells:
            yield row
        elif row:
            # A line may end with extra separators, or without the cells of unnamed columns.
            if len(row) < n_named or any(row[n_cells:]):
                raise DatasetError(
                    f"{path}, line {rows.line_num} must have {n_cells} values, got {len(row)}: "
                    f"quote values that contain {rows.dialect.delimiter!r}, or set --separator"
                )
            yield (row + [""] * n_cells)[:n_cells]


def _check_varies(path: Path, rows: Iterable[list[str]], names: list[str], target: int) -> None:
    """Raise DatasetError if the target is the same in all rows, before features are parsed."""
    values = (row[target].strip() for row in rows if len(row) > target)
    known = (value for value in values if value.lower() not in MISSING - NAMES)
    first = next(known, None)
    if first is not None and all(value == first for value in known):
        raise DatasetError(
            f"{path}: {names[target]!r} is {first[:40]} in every row: nothing to predict"
        )


def _labels(y: list[str], form: CsvFormat) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the targets (None if missing) and notes; a class may be named NA or None."""
    counts = Counter(y)
    values = {text: parse(text, form.number) for text in counts if text.lower() not in MISSING}
    has_text = any(isinstance(value, str) for value in values.values())
    holes = MISSING - NAMES if has_text else MISSING
    notes = tuple(
        f"{text!r} is a class ({count:,} rows): if it means a missing value, leave it empty"
        for text, count in counts.items()
        if text.lower() in MISSING - holes
    )
    is_plain = has_text or form.decimal != ","
    labels: dict[str, str | None] = {t: t if is_plain else t.replace(",", ".") for t in counts}
    labels |= {text: None for text in counts if text.lower() in holes}
    found = np.empty(len(y), dtype=object)
    found[:] = [*map(labels.__getitem__, y)]
    return found, notes


def number_with_comma(text: str) -> float:
    """Parse a number with a decimal comma; a point would be ambiguous."""
    if "." in text:
        raise ValueError(text)
    return float(text.replace(",", "."))
