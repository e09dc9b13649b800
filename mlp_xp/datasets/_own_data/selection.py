"""The columns that are read from a table: the features and the target."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.columns.categories import WORDS, parse_date
from mlp_xp._utils.columns.kinds import RawColumn
from mlp_xp._utils.columns.table import ColumnTable, as_matrix
from mlp_xp._utils.names import error_end, list_names
from mlp_xp.datasets._dataset import Column, DatasetError
from mlp_xp.datasets._own_data.columns import check_columns
from mlp_xp.datasets._own_data.csv_format import CsvFormat
from mlp_xp.datasets._own_data.values import parse

TARGETS = ("target", "label", "class", "y")  # The default names of the column to predict.
MOST_COLUMNS = 50_000  # With more, training would take hours, and not fit into memory.


class Table(NamedTuple):
    """The content of a file: the names, kinds and values of the features, and the target.

    ``rows`` are a matrix of numbers, or a table. In the matrix ``x`` of the same values, missing
    numbers are NaN; there are objects if the file has text or dates, and None if they are missing.
    ``n_left_out`` is the number of rows without a target; ``notes`` tell the user about the target.
    ``kept`` contains further columns as they are in the file.
    """

    columns: tuple[Column, ...]
    rows: NDArray[Any] | ColumnTable
    y: NDArray[Any] | None
    target: str
    n_left_out: int = 0
    notes: tuple[str, ...] = ()
    kept: Mapping[str, list[Any]] = MappingProxyType({})

    @property
    def x(self) -> NDArray[Any]:
        """The features as a matrix."""
        return as_matrix(self.rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(column.name for column in self.columns)


class Wanted(NamedTuple):
    """The columns to read; see `read_table`."""

    target: str | None
    drop: tuple[str, ...]
    columns: Sequence[Column] | None
    has_target: bool
    form: CsvFormat
    kept: tuple[str, ...] = ()

    def expected(self, n_columns: int) -> list[Column | None]:
        """Return the model's column at each position, or None at each position without a model."""
        return [None] * n_columns if self.columns is None else [*self.columns]


class Choice(NamedTuple):
    """The positions of the features, and of the target if there is one."""

    features: list[int]
    target: int | None
    kept: dict[str, int]


def choose(path: Path, names: list[str], wanted: Wanted) -> Choice:
    """Return the positions of the features and the target, after checking the names."""
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        raise DatasetError(
            f"{path} has {names.count(repeated[0])} columns named {repeated[0]!r}: rename all but "
            "one, or begin the file with a line of names"
        )
    shown = list_names(names, str)
    if unknown := [name for name in wanted.drop if name not in names]:
        end = error_end(unknown[0], names)
        raise DatasetError(f"{path} has no column {unknown[0]!r} to drop{end} It has {shown}")
    target = wanted.target
    if wanted.has_target:
        if target is None:
            others = [name for name in names if name not in ("", *wanted.drop)] or names
            target = next((name for name in others if name.lower() in TARGETS), others[-1])
        elif target not in names:
            end = error_end(target, names)
            raise DatasetError(f"{path} has no column {target!r} to predict{end} It has {shown}")
        if target in wanted.drop:
            raise DatasetError(f"{target!r} is the column to predict: leave it out of --drop")
    if wanted.columns is not None:
        features = [column.name for column in wanted.columns]
    else:
        features = [name for name in names if name not in (target, "", *wanted.drop)]
        # Arrays may have images, whose pixels are not embedded.
        if len(features) > MOST_COLUMNS and path.suffix.lower() != ".npz":
            raise DatasetError(
                f"{path} has {len(names):,} columns, but at most {MOST_COLUMNS:,} can be inputs: "
                "keep the most useful ones, or in Python, pass a matrix of numbers to fit"
            )
    where = {name: position for position, name in enumerate(names)}
    if absent := [name for name in features if name not in where]:
        raise DatasetError(
            f"{path} has no column {list_names(absent)}, which the network was trained "
            f"with; it has {shown}"
        )
    if unknown := [name for name in wanted.kept if name not in where]:
        end = error_end(unknown[0], names)
        raise DatasetError(f"{path} has no column {unknown[0]!r} to copy{end} It has {shown}")
    if not features:
        more = ", or set --separator" if path.suffix.lower() == ".csv" else ""
        raise DatasetError(f"{path} has only the column {target!r}: add at least one feature{more}")
    position = where[str(target)] if wanted.has_target else None
    kept = {name: where[name] for name in wanted.kept}
    return Choice([where[name] for name in features], position, kept)


def numbered(n_columns: int) -> list[str]:
    """Return the names 1, 2, ... for columns without names."""
    return [str(number + 1) for number in range(n_columns)]


def make_table(
    path: Path,
    names: list[str],
    choice: Choice,
    wanted: Wanted,
    columns: list[RawColumn] | NDArray[Any],
    y: NDArray[Any],
) -> Table:
    """Check the columns, and return the table without rows that lack a target."""
    kept = tuple(names[i] for i in choice.features)
    is_known = np.asarray(y == y, dtype=bool)  # NaN is not equal to itself.
    if y.dtype == object:
        is_known &= np.not_equal(y, np.asarray(None))
    if choice.target is not None and not np.all(is_known):
        y = y[is_known]
        if isinstance(columns, np.ndarray):
            columns = columns[is_known]
        else:
            columns = [raw.take(is_known) for raw in columns]
    each = columns
    if isinstance(columns, np.ndarray):
        pairs = zip(kept, columns.T, strict=True)
        each = [RawColumn(name, "number", values) for name, values in pairs]
    if not len(each[0].values):
        raise DatasetError(f"{path} has no rows: add one per sample, with its target")
    for column, raw in zip(wanted.columns or (), each, strict=False):
        if raw.kind == "text" != column.kind and not raw.is_empty:
            raise _changed(path, column, [*filter(None, raw.plain_values)], wanted.form)
    check_columns(path, each, wanted.form, are_known=wanted.columns is not None)
    found = tuple(Column(raw.label, raw.kind) for raw in each)
    rows = columns if isinstance(columns, np.ndarray) else _typed(columns)
    if choice.target is None:
        return Table(found, rows, None, "")
    return Table(found, rows, y, names[choice.target], len(is_known) - len(rows))


def _changed(path: Path, column: Column, texts: list[str], form: CsvFormat) -> DatasetError:
    """Return the error for a column that has text instead of the model's numbers or dates."""
    is_date = column.kind == "date"
    wrong = [
        text
        for text in texts
        if (parse_date(text) is None if is_date else isinstance(parse(text, form.number), str))
    ]
    text = next((text for text in wrong if text.lower() not in WORDS), wrong[0])
    hint = "" if is_date else form.decimal_hint("unknown" if "," in text else "")
    what, cure = "dates" if is_date else "numbers", f"{hint}, " if hint else ""
    return DatasetError(
        f"{path}: {column.name!r} has {text[:40]!r}, but the network was trained with {what}: "
        f"correct it, {cure}or leave it empty"
    )


def _typed(columns: Sequence[RawColumn]) -> ColumnTable:
    """Return the columns as a table in which flags are numbers."""
    return ColumnTable(
        tuple(
            RawColumn(raw.label, "number", raw.values) if raw.kind == "flag" else raw
            for raw in columns
        )
    )
