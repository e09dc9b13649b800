"""Choice of the table columns that a network can use, with notes for the user."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mlp_xp._utils.columns.categories import find_wrong_text, judge_categories
from mlp_xp._utils.columns.kinds import KINDS, RawColumn
from mlp_xp._utils.columns.table import ColumnTable
from mlp_xp._utils.optional import as_typed
from mlp_xp.datasets._dataset import Column, DatasetError
from mlp_xp.datasets._own_data.csv_format import CsvFormat

_RECOGNIZED = CsvFormat()


def check_columns(
    path: object, columns: Iterable[RawColumn], form: CsvFormat, *, are_known: bool
) -> None:
    """Raise DatasetError if columns cannot be inputs; the error lists them and what to type.

    If ``are_known``, a model has these columns, so text is known to be categorical.
    """
    problems, cures = {}, {f"write plain numbers such as {form.text(1234.5)}": None}
    for raw in columns:
        if raw.kind == "text":
            wrong = None if are_known else find_wrong_text(raw.counts)
            if wrong is not None and wrong.is_certain:
                problems[raw.label] = wrong.reason
                if wrong.form == "date":
                    cures["write dates such as 2026-01-31"] = None
                if hint := form.decimal_hint(wrong.commas):
                    cures[hint] = None
        elif raw.kind != "date" and np.any(infinite := np.isinf(raw.values)):
            row = int(np.argmax(infinite)) + 1
            problems[raw.label] = f"is infinite in row {row}, or too large for float64"
    if problems:
        reasons = "; ".join(f"{name!r} {reason}" for name, reason in problems.items())
        raise DatasetError(
            f"{path} has columns that cannot be used: {reasons}: {', '.join(cures)}, or type "
            f"{drop_option(problems)}"
        )


def drop_option(names: Iterable[str]) -> str:
    """Return the ``--drop`` option for these columns, quoted for a shell."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return f"--drop {as_typed(line.getvalue())}"


def choose_columns(
    path: object,
    columns: Sequence[Column],
    x: Any,
    x_train: Any,
    form: CsvFormat = _RECOGNIZED,
) -> tuple[tuple[Column, ...], list[str]]:
    """Return the columns that can be inputs, and notes for the user.

    ``x`` are all rows, as a matrix of numbers or a table, and ``x_train`` the rows to train on.
    """
    used, notes = [], []
    pairs = zip(_columns_of(x), _columns_of(x_train), strict=True)
    for column, (raw, train) in zip(columns, pairs, strict=True):
        name, kind = column.name, column.kind
        if train.is_empty:
            notes.append(f"left out: {name} (it is empty)")
            continue
        if kind == "text":
            is_left_out, note = _text_note(name, raw.counts, train, form)
            notes += [note] if note else []
            if is_left_out:
                continue
        is_gap = raw.is_missing
        if kind not in ("text", "date"):
            numbers = raw.values.astype(np.float64)
            kind = "flag" if np.all(np.isin(numbers[~is_gap], (0.0, 1.0))) else "number"
            if len(columns) > 1 and len(x) > 2 and np.all(np.diff(numbers) == 1):
                cure = f"to leave it out, type {drop_option([name])}"
                notes.append(f"{name} numbers the rows: {cure}")
        used.append(Column(name, kind, bool(np.any(is_gap))))
    if not used:
        raise DatasetError(
            f"{path} has no column that can be an input: {'; '.join(notes)}; set --target to the "
            "column to predict"
        )
    return tuple(used), notes


def _columns_of(x: Any) -> Sequence[RawColumn]:
    """Return the columns of a table, or of a matrix of numbers."""
    return x.columns if isinstance(x, ColumnTable) else [RawColumn("", "number", v) for v in x.T]


def _text_note(
    name: str, everywhere: Mapping[Any, int], train: RawColumn, form: CsvFormat
) -> tuple[bool, str]:
    """Return whether a text column is left out, and a note for the user or ""."""
    is_left_out, note = judge_categories(train.counts, len(train.values), everywhere)
    if is_left_out:
        return True, f"left out: {name} ({note})"
    wrong = find_wrong_text(everywhere)
    if wrong is not None and wrong.is_unusual and len(everywhere) > 2:
        note = f"{name} {wrong.reason}, but is used as {len(everywhere)} categories"
        hint = form.decimal_hint(wrong.commas)
        return False, f"{note}: {hint}" if hint else note
    return False, f"{name}: {note}" if note else ""


def decode_columns(entries: Any) -> tuple[Column, ...]:
    """Return the columns in untrusted JSON; raise ValueError if the JSON is invalid."""
    columns = tuple(Column(**entry) for entry in entries)
    for column in columns:
        if not isinstance(column.name, str) or column.kind not in KINDS:
            raise ValueError(f"columns contains an invalid column: {column!r}")
    return columns
