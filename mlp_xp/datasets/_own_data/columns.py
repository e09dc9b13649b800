"""Columns of a table as inputs of a network: numbers, text in one-hot form, filled holes."""

import csv
import io
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp.datasets._dataset import Column, DatasetError

# A text column has this many inputs at most, each for a value of this many rows at least, or of
# one in a hundred where rows are few: `max_categories` and `min_frequency` of `OneHotEncoder`.
_MAX_LEVELS, _MIN_ROWS, _ROWS_A_LEVEL = 50, 5, 100
_MANY = 0.9  # of the rows: the values of an identifier, or the numbers of a damaged column
_NO_DIGITS = re.compile(r"[\s,$€£%]")


def check_columns(path: object, names: Sequence[str], x: NDArray[Any]) -> None:
    """Raise DatasetError with all columns that can be no input, and what to type."""
    if x.dtype != object and (x.dtype.kind != "f" or not np.any(np.isinf(x))):
        return
    problems = {}
    for i, name in enumerate(names) if x.dtype.kind in "fO" else ():
        column = x[:, i]
        if not isinstance(column[0], str):
            if np.any(infinite := np.isinf(column.astype(np.float64, copy=False))):
                problems[name] = f"is infinite in row {int(np.argmax(infinite)) + 1}"
        elif len({*column}) > _MAX_LEVELS:
            texts = [text for text in column if text and not _is_number(text)]
            others = [text for text in texts if not _is_number(_NO_DIGITS.sub("", text))]
            if len(others) < (1 - _MANY) * np.sum(column != ""):
                problems[name] = f"has {(others or texts)[0][:40]!r} among its numbers"
    if problems:
        reasons = "; ".join(f"{name!r} {reason}" for name, reason in problems.items())
        raise DatasetError(
            f"{path}: not all columns can be used: {reasons}: write plain numbers, or type "
            f"{drop_option(problems)}"
        )


def drop_option(names: Iterable[str]) -> str:
    """Return the option that leaves columns out, as a shell takes it."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return f"--drop {shlex.quote(line.getvalue())}"


def learn_columns(
    path: object, names: Sequence[str], x: NDArray[Any], x_train: NDArray[Any]
) -> tuple[tuple[Column, ...], list[str]]:
    """Return the columns that can be inputs, and notes for a reader.

    Which ones follows from all rows; medians and levels come from the training rows.
    """
    used, notes = [], []
    least = max(1, min(_MIN_ROWS, len(x_train) // _ROWS_A_LEVEL))
    for i, name in enumerate(names):
        column, train = x[:, i], x_train[:, i]
        if not isinstance(column[0], str):
            everything, numbers = column.astype(np.float64), train.astype(np.float64)
            is_gap = np.isnan(numbers)
            if np.all(is_gap):
                notes.append(f"left out: {name} (it is empty)")
                continue
            median = float(np.median(numbers[~is_gap]))
            is_flag = bool(np.all(np.isin(everything[~np.isnan(everything)], (0.0, 1.0))))
            used.append(Column(name, median, bool(np.any(is_gap)), is_flag))
            if len(names) > 1 and len(x) > 2 and np.all(np.diff(everything) == 1):
                notes.append(
                    f"{name} counts the rows: if it is no feature, type {drop_option([name])}"
                )
            continue
        n_levels, n_filled = len({*column} - {""}), int(np.sum(column != ""))
        counts = Counter(train.tolist()).most_common(_MAX_LEVELS)
        levels = tuple(sorted(level for level, count in counts if count >= least))
        if n_levels > max(1, _MANY * n_filled) or len(levels) == 0:
            notes.append(f"left out: {name} (text, with {n_levels:,} values in {n_filled:,} rows)")
        elif len(counts) == 1:
            notes.append(f"left out: {name} (it is {levels[0][:40]!r} in each row)")
        else:
            used.append(Column(name, levels=levels))
            n_used = len({*levels} - {""})
            if n_used < n_levels:
                seen = f"{n_used} of {n_levels:,} values are inputs, the others are rare"
                if not n_used:
                    seen = "only whether it is filled is an input, its values are rare"
                notes.append(f"{name}: {seen}")
    if not used:
        raise DatasetError(
            f"{path} has no column that can be an input: {'; '.join(notes)}; --target names the "
            "column to predict"
        )
    return tuple(used), notes


def input_names(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the names of the inputs, in the order of `transform`."""
    numbers = [column for column in columns if column.levels is None]
    gaps = [f"{column.name} is missing" for column in numbers if column.has_gaps]
    levels = [f"{c.name}={level}" for c in columns for level in c.levels or ()]
    return (*(column.name for column in numbers), *gaps, *levels)


def transform(columns: Sequence[Column], x: NDArray[Any]) -> NDArray[Any]:
    """Return the inputs of a network: numbers, indicators of holes, one-hot text.

    Parameters
    ----------
    columns : sequence of Column
    x : (rows, columns) array
        Numbers with NaN for holes, text with "".

    Returns
    -------
    (rows, inputs) float64, or uint8 as it was
    """
    if all(column.levels is None and not column.has_gaps for column in columns):
        if x.dtype == np.uint8:
            return x
        x = np.asarray(x, dtype=np.float64)
        if not np.any(np.isnan(x)):
            return x
    return np.asarray(_transformer(columns).transform(x), dtype=np.float64)


def _transformer(columns: Sequence[Column]) -> Any:
    """Return scikit-learn's transformer, fitted on two rows with all that was learned."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder

    numbers = [i for i, column in enumerate(columns) if column.levels is None]
    texts = [i for i, column in enumerate(columns) if column.levels is not None]
    levels = [[*(columns[i].levels or ())] for i in texts]
    imputer = SimpleImputer(strategy="median", add_indicator=True)
    encoder = OneHotEncoder(categories=levels, handle_unknown="ignore", sparse_output=False)
    steps = [("numbers", imputer, numbers), ("text", encoder, texts)]
    filled = [column.levels[0] if column.levels else column.median for column in columns]
    holes = [math.nan if c.has_gaps else value for c, value in zip(columns, filled, strict=True)]
    rows = np.asarray([filled, holes], dtype=object if texts else np.float64)
    return ColumnTransformer([step for step in steps if step[2]]).fit(rows)


def decode_columns(entries: Any) -> tuple[Column, ...]:
    """Return columns from their form in JSON, which may be anybody's; ValueError for any other."""
    columns = tuple(Column(**{**entry, "levels": _tuple(entry["levels"])}) for entry in entries)
    for column in columns:
        is_valid = (
            isinstance(column.name, str)
            and type(column.median) is float
            and math.isfinite(column.median)
            and type(column.has_gaps) is type(column.is_flag) is bool
            and (
                column.levels is None
                or (column.levels and all(isinstance(level, str) for level in column.levels))
            )
        )
        if not is_valid:
            raise ValueError(f"columns has {column!r}")
    return columns


def _tuple(levels: list[str] | None) -> tuple[str, ...] | None:
    return None if levels is None else tuple(levels)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
