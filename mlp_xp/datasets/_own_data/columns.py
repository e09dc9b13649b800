"""Choice of the table columns that a network can use, with notes for the user."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.categories import FEW, MANY, least_rows
from mlp_xp._utils.optional import as_typed
from mlp_xp.datasets._dataset import Column, DatasetError

KINDS = ("number", "flag", "date", "text")
_NO_DIGITS = re.compile(r"[\s,$€£%]")


def first_value(column: NDArray[Any]) -> Any:
    """Return the first value of a column that is not missing, or None."""
    return next((value for value in column if value is not None and value == value), None)


def _counts_of(column: NDArray[Any]) -> Counter[Any]:
    """Return the number of rows with each value that is not missing."""
    counts = Counter(column.tolist())
    del counts[None]
    return counts


def check_columns(path: object, names: Sequence[str], columns: Iterable[NDArray[Any]]) -> None:
    """Raise DatasetError if columns cannot be inputs; the error lists them and what to type."""
    problems = {}
    for name, column in zip(names, columns, strict=True):
        first = first_value(column) if column.dtype == object else 0.0
        if isinstance(first, str):
            if text := _text_among_numbers(_counts_of(column)):
                problems[name] = f"has {text[:40]!r} among its numbers"
        elif not isinstance(first, datetime | None) and np.any(
            infinite := np.isinf(column.astype(np.float64, copy=False))
        ):
            problems[name] = f"is infinite in row {int(np.argmax(infinite)) + 1}"
    if problems:
        reasons = "; ".join(f"{name!r} {reason}" for name, reason in problems.items())
        raise DatasetError(
            f"{path} has columns that cannot be used: {reasons}: write plain numbers such as "
            f"1234.5, or type {drop_option(problems)}"
        )


def _text_among_numbers(counts: Counter[str]) -> str | None:
    """Return a text that is not a number if nearly all rows have numbers, else None."""
    if len(counts) <= FEW:
        return None
    limit, texts, others = (1 - MANY) * counts.total(), [], Counter[str]()
    for text, count in counts.items():
        if not is_number(text):
            texts.append(text)
            if not is_number(_NO_DIGITS.sub("", text)):
                others[text] = count
                limit -= count
                if limit <= 0:
                    return None
    return next(iter([*others, *texts]), None)


def drop_option(names: Iterable[str]) -> str:
    """Return the ``--drop`` option for these columns, quoted for a shell."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return f"--drop {as_typed(line.getvalue())}"


def choose_columns(
    path: object, names: Sequence[str], x: NDArray[Any], x_train: NDArray[Any]
) -> tuple[tuple[Column, ...], list[str]]:
    """Return the columns that can be inputs, and notes for the user."""
    used, notes = [], []
    for i, name in enumerate(names):
        column, train = x[:, i], x_train[:, i]
        first = first_value(train)
        if first is None:
            notes.append(f"left out: {name} (it is empty)")
            continue
        if isinstance(first, str):
            is_left_out, note = _text_note(name, column, train)
            notes += [note] if note else []
            if not is_left_out:
                used.append(Column(name, "text", None in {*column}))
            continue
        if isinstance(first, datetime):
            used.append(Column(name, "date", None in {*column}))
            continue
        numbers = column.astype(np.float64)
        is_gap = np.isnan(numbers)
        is_flag = np.all(np.isin(numbers[~is_gap], (0.0, 1.0)))
        used.append(Column(name, "flag" if is_flag else "number", bool(np.any(is_gap))))
        if len(names) > 1 and len(x) > 2 and np.all(np.diff(numbers) == 1):
            notes.append(f"{name} numbers the rows: to leave it out, type {drop_option([name])}")
    if not used:
        raise DatasetError(
            f"{path} has no column that can be an input: {'; '.join(notes)}; set --target to the "
            "column to predict"
        )
    return tuple(used), notes


def _text_note(name: str, column: NDArray[Any], train: NDArray[Any]) -> tuple[bool, str]:
    """Return whether a text column is left out, and a note for the user or ""."""
    everywhere, counts = _counts_of(column), _counts_of(train)
    n_values, n_filled = len(everywhere), everywhere.total()
    has_missing = counts.total() < len(train)
    least = least_rows(len(train))
    n_used = sum(count >= least for count in counts.values())
    has_rare = n_used < len(counts)
    if len(counts) == 1 and not has_missing:
        return True, f"left out: {name} (it is {next(iter(counts))[:40]!r} in each row)"
    if n_values > max(1, MANY * n_filled) or has_missing + has_rare + n_used < 2:
        return True, f"left out: {name} (text, with {n_values:,} values in {n_filled:,} rows)"
    if n_used == n_values:
        return False, ""
    if n_used == 0:
        return False, f"{name}: all values are rare, so the only input is whether one is missing"
    return False, f"{name}: {n_used} of {n_values:,} values are inputs; the others are too rare"


def decode_columns(entries: Any) -> tuple[Column, ...]:
    """Return the columns in untrusted JSON; raise ValueError if the JSON is invalid."""
    columns = tuple(Column(**entry) for entry in entries)
    for column in columns:
        if not isinstance(column.name, str) or column.kind not in KINDS:
            raise ValueError(f"columns contains an invalid column: {column!r}")
    return columns


def is_number(value: Any) -> bool:
    """Whether a value, or its text, is a finite number."""
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
