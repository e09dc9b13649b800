"""CSV files: lines, names, the values of each column, and the target."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.columns.categories import MISSING, NAMES
from mlp_xp.datasets._dataset import DatasetError
from mlp_xp.datasets._own_data.csv_format import CsvFormat
from mlp_xp.datasets._own_data.selection import Table, Wanted, choose, make_table, numbered
from mlp_xp.datasets._own_data.values import Values, parse

_MAY_NAME = {"", *NAMES}  # Texts that name a column in the first line, e.g. Na for sodium.
_CELLS = 1 << 12  # Parsed at once: larger blocks of rows leave the caches.


def read_csv(path: Path, wanted: Wanted) -> Table:
    """Read a CSV file with or without a line of names."""
    form = wanted.form
    encoding, note = form.recognize_encoding(path)
    with path.open(newline="", encoding=encoding) as file:
        separator = form.recognize_separator(file.readline(1 << 20))
        file.seek(0)
        rows = csv.reader(file, delimiter=separator, strict=True)
        first = next(rows, [])
        if not first:
            raise DatasetError(f"{path} is empty: write a line of names, then a line per sample")
        has_names = _has_names(first, wanted)
        names = [name.strip() for name in first] if has_names else numbered(len(first))
        choice = choose(path, names, wanted)
        known = wanted.expected(len(choice.features))
        columns = [
            (i, Values(column, form)) for i, column in zip(choice.features, known, strict=True)
        ]
        if choice.target is not None and wanted.columns is None:
            _check_varies(path, rows if has_names else chain([first], rows), names, choice.target)
            file.seek(0)
            rows = csv.reader(file, delimiter=separator, strict=True)
            first = next(rows)
        y: list[str] = []
        kept: dict[str, list[str]] = {name: [] for name in choice.kept}
        lines = _lines(path, rows, [] if has_names else [first], names)
        while block := list(islice(lines, max(8, _CELLS // len(names)))):
            cells = [*zip(*block, strict=True)]
            for i, values in columns:
                values.extend(cells[i])
            if choice.target is not None:
                y += map(str.strip, cells[choice.target])
            for name, place in choice.kept.items():
                kept[name] += cells[place]
    labels, notes = _labels(y, form)
    found = [values.column(names[i]) for i, values in columns]
    table = make_table(path, names, choice, wanted, found, labels)
    return table._replace(notes=(*notes, *([note] if note else [])), kept=kept)


def _has_names(first: list[str], wanted: Wanted) -> bool:
    """Whether the first line contains the names of the columns."""
    signs = {"target", "label", "class", wanted.target and wanted.target.lower()}
    if signs & {name.strip().lower() for name in first}:
        return True
    expected = {column.name for column in wanted.columns or ()}
    if expected - {*numbered(len(first))} and expected <= {name.strip() for name in first}:
        return True  # Names may be numbers, e.g. years.
    return all(
        isinstance(parse(name, wanted.form.number), str) or name.strip().lower() in _MAY_NAME
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
    found = np.empty(len(y), dtype=object)
    found[:] = y
    different = {*y}
    gaps = {text for text in different if text.lower() in MISSING}
    has_text = _has_text(different - gaps, form)
    holes = {text for text in gaps if not (has_text and text.lower() in NAMES)}
    named = gaps - holes
    counts = Counter(text for text in y if text in named)
    notes = tuple(
        f"{text!r} is a class ({count:,} rows): if it means a missing value, leave it empty"
        for text, count in counts.items()
    )
    if holes:
        found[[text in holes for text in y]] = None
    if form.decimal == "," and not has_text:
        found[:] = [text and text.replace(",", ".") for text in found]
    return found, notes


def _has_text(texts: Iterable[str], form: CsvFormat) -> bool:
    """Whether a text is no number."""
    try:
        for text in texts:
            form.number(text)
    except ValueError:
        return True
    return False
