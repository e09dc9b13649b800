"""Learning a table's columns from the training data, and encoding tables as matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import validate_data

from mlp_xp._utils.columns.categories import judge_categories
from mlp_xp._utils.columns.kinds import RawColumn, join_columns
from mlp_xp._utils.columns.problems import Problems
from mlp_xp._utils.names import list_names
from mlp_xp._utils.sklearn_compat import warn_caller
from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.estimators.tables.frames import has_names
from mlp_xp.estimators.tables.kinds import (
    CategoryColumn,
    Column,
    EmptyColumn,
    check_finite,
    learn_column,
    numbers_of,
)
from mlp_xp.estimators.tables.monotone import column_directions
from mlp_xp.estimators.tables.reading import read_table
from mlp_xp.estimators.tables.scaling import learn_scaling
from mlp_xp.estimators.tables.text import parse_text, warn_of_values
from mlp_xp.recipes.parameters import TABLE_SCALINGS

_MOST_ROWS = 200_000  # The maximum total number of rows, on all processes, to learn columns from.
_MOST_COLUMNS = 1000  # With more, the distributions would be most of a saved model.


def learn_columns(estimator: Any, raws: Sequence[RawColumn]) -> TableColumns:
    """Return the columns of the training data, according to an estimator's parameters.

    Warn about columns that are left out. Raise ValueError if columns cannot be used as inputs.
    """
    names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(len(raws))])
    names = [str(name) for name in names]
    learned: list[tuple[Column, RawColumn]] = []
    left_out: list[str] = []
    problems = Problems()
    are_named = _named(estimator.categorical_features, len(raws), names)
    given, has_own_names = estimator.monotonic_cst, hasattr(estimator, "feature_names_in_")
    directions = column_directions(given, names, has_names=has_own_names)
    for raw, name, is_named, direction in zip(raws, names, are_named, directions, strict=True):
        with problems.collect():
            raw.raise_error()
            is_text = raw.kind == "text" and not raw.is_declared and not is_named
            parsed = parse_text(raw) if is_text else raw
            chosen: Any = {"is_named": is_named, "direction": direction}
            column = learn_column(estimator, name, parsed, **chosen)
            if isinstance(column, CategoryColumn):
                is_useless, _ = judge_categories(parsed.counts, len(raw.values))
                is_useless &= is_text or not (column.values or column.has_missing)
                if is_text:
                    warn_of_values(parsed, is_left_out=is_useless)
                if is_useless:
                    left_out.append(raw.label)
                    column = EmptyColumn(name, True)
            learned.append((column, parsed))
    problems.raise_error()
    _check_inputs(learned, left_out)
    columns = tuple(column for column, _ in learned)
    categorical, max_one_hot = estimator.categorical_features, estimator.max_one_hot
    labels, parts = numbers_of(learned)
    check_finite(labels, parts)
    there = [values[~np.isnan(values)].astype(np.float64) for values in parts]
    medians = np.asarray([np.median(values) for values in there])
    # If `precision` is below float64, use float32, even if columns have a different dtype.
    is_single = estimator.precision not in ("auto", "float64")
    is_single |= bool(parts) and all(values.dtype == np.float32 for values in parts)
    scaling = estimator.input_scaling
    settings = {
        "categorical_features": np.asarray(categorical).tolist(),
        "max_one_hot": max_one_hot,
        "monotonic_cst": np.asarray(given).tolist(),
    }
    return TableColumns(
        columns,
        medians,
        learn_scaling(scaling if scaling in TABLE_SCALINGS else None, there, medians, labels),
        "float32" if is_single else "float64",
        settings,
        tuple(column.distribution(raw) for column, raw in learned if len(learned) <= _MOST_COLUMNS),
    )


def _check_inputs(learned: Sequence[tuple[Column, RawColumn]], left_out: Sequence[str]) -> None:
    """Raise ValueError if no column is an input; otherwise, warn about text that is left out."""
    shown = list_names(left_out, str)
    why = "text is constant or hardly repeats"
    if all(isinstance(column, EmptyColumn) for column, _ in learned):
        if not left_out:
            raise ValueError("X has no value in any column: check how it was loaded.")
        raise ValueError(f"X has no column that can be an input, since its {why}: {shown}.")
    if left_out:  # The same text in each fold of a cross-validation is printed once.
        cure = "Drop these columns to silence this warning."
        warn_caller(f"Left out as inputs, since their {why}: {shown}. {cure}")


def _named(given: Any, n_columns: int, names: Sequence[str]) -> list[bool]:
    """Return, for each column, whether the user chose it as categorical."""
    if given is None or isinstance(given, str):
        return [False] * n_columns
    chosen = np.asarray(given)
    if chosen.dtype.kind == "b":
        if chosen.shape != (n_columns,):
            raise ValueError(
                f"categorical_features is a mask of shape {chosen.shape}, but X has {n_columns} "
                "columns: pass a mask with one entry per column."
            )
        return [bool(one) for one in chosen]
    positions = set()
    for entry in given if isinstance(given, list | tuple) else chosen.tolist():
        if isinstance(entry, str) and entry in names:
            positions.add(list(names).index(entry))
        elif isinstance(entry, int | np.integer) and -n_columns <= entry < n_columns:
            positions.add(int(entry) % n_columns)
        else:
            raise ValueError(
                f"categorical_features has {entry!r}, but X has {n_columns} columns: "
                f"{list_names(names)}. Pass their names or positions."
            )
    return [i in positions for i in range(n_columns)]


def encode_table(
    estimator: Any, X: Any, *, reset: bool, exchange: Callable[[Any], list[Any]] | None = None
) -> np.ndarray:
    """Return the encoded matrix of a table on the host; if ``reset``, learn the columns first.

    If X is one process's part of the samples (perhaps without rows), ``exchange`` collects the
    values of all processes. Raise ValueError if the table cannot be encoded or does not match the
    fitted table.
    """
    if sparse.issparse(X):
        raise ValueError(
            "X is sparse, but categories, missing numbers, and input_scaling='robust' or "
            "'quantile' require a dense table: pass X.toarray(), or leave these settings out."
        )
    is_matched = not reset and hasattr(estimator, "feature_names_in_") and has_names(X)
    raws = estimator.columns_.read_named(X) if is_matched else read_table(X)
    is_empty = not raws or not len(raws[0].values)
    if is_empty and (not raws or exchange is None):
        n, what = (0, "sample") if raws else (len(X), "feature")
        raise ValueError(
            f"Found array with 0 {what}(s) (shape=({n}, {len(raws)})) while a minimum of 1 is "
            "required."
        )
    if not is_matched:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    if reset:
        joined = raws if exchange is None else _joined(raws, exchange)
        estimator.columns_, setting = learn_columns(estimator, joined), estimator.input_scaling
        if setting is not None and setting not in TABLE_SCALINGS and estimator.columns_.categories:
            raise ValueError(
                f"input_scaling={setting!r} mixes all inputs, but columns with more than "
                f"max_one_hot={estimator.max_one_hot} categories are encoded as integer codes: "
                "set max_one_hot=float('inf'), or input_scaling='robust'."
            )
    if is_empty:  # Return a placeholder row, since this process has no samples.
        return np.zeros((1, len(estimator.columns_.input_names)), estimator.columns_.dtype)
    return estimator.columns_.encode(raws, imputes=estimator.missing_values != "error")


def _joined(raws: Sequence[RawColumn], exchange: Callable[[Any], list[Any]]) -> list[RawColumn]:
    """Return the columns joined over all processes; large tables are subsampled."""
    n_parts, n_rows = len(exchange(None)), len(raws[0].values)
    rows = np.linspace(0, n_rows - 1, min(n_rows, _MOST_ROWS // n_parts)).astype(np.intp)
    mine = [raw.take(rows) for raw in raws]
    return [join_columns(parts) for parts in zip(*exchange(mine), strict=True)]
