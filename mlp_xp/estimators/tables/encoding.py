"""Learning a table's columns from the training data, and encoding tables as matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import validate_data

from mlp_xp._utils.categories import least_rows
from mlp_xp.estimators.checks.text_advice import IMPUTE
from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.estimators.tables.kinds import (
    CategoryColumn,
    Column,
    DateColumn,
    EmptyColumn,
    NumberColumn,
    check_finite,
    numbers_of,
)
from mlp_xp.estimators.tables.reading import RawColumn, join_columns, read_table
from mlp_xp.estimators.tables.scaling import learn_scaling
from mlp_xp.recipes.parameters import TABLE_SCALINGS

_MOST_ROWS = 200_000  # The maximum total number of rows, on all processes, to learn columns from.
_NAMED = 5  # The maximum number of columns that an error names.


def learn_columns(estimator: Any, raws: Sequence[RawColumn]) -> TableColumns:
    """Return the columns of the training data, according to an estimator's parameters.

    Raise ValueError if a column cannot be used as input.
    """
    names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(len(raws))])
    names = [str(name) for name in names]
    categorical, max_one_hot = estimator.categorical_features, estimator.max_one_hot
    are_categories = _categorical(categorical, raws, names)
    is_named = not isinstance(categorical, str)
    if all(raw.is_empty for raw in raws):
        raise ValueError("X has no value in any column: check how it was loaded.")
    columns: list[Column] = []
    useless: dict[str, str] = {}  # The labels of columns from which nothing can be learned.
    for raw, name, is_category in zip(raws, names, are_categories, strict=True):
        if raw.is_empty:  # Accept empty columns, since cross-validation folds may have them.
            if raw.kind == "number" and estimator.missing_values == "error":
                raise ValueError(f"{raw.label} is missing (NaN) in row 0: {IMPUTE}.")
            columns.append(EmptyColumn(name, True))
        elif is_category and raw.kind == "date":
            raise ValueError(
                f"{raw.label} has dates: leave it out of categorical_features, since dates become "
                "year, day of year and weekday."
            )
        elif is_category:
            column = CategoryColumn.learn(name, raw, max_one_hot, is_named=is_named)
            columns.append(column)
            if not column.values and not column.has_missing:
                useless[name] = raw.label
        elif raw.kind == "date":
            columns.append(DateColumn.learn(name, raw))
        elif raw.kind == "category":
            raise ValueError(
                f"{raw.label} has categories: set categorical_features='from_dtype', or name the "
                f"column, categorical_features=[{name!r}, ...]."
            )
        else:
            columns.append(NumberColumn.learn(name, raw))
    if useless:
        cure = f"X.drop(columns={[*useless]}), or X.drop({[*useless]}) in polars"
        if not hasattr(estimator, "feature_names_in_"):
            cure = f"numpy.delete(X, {[names.index(name) for name in useless]}, axis=1)"
        raise ValueError(
            f"{next(iter(useless.values()))} has no category shared by "
            f"{least_rows(len(raws[0].values))} rows, so nothing can be learned from it: drop it, "
            f"e.g. {cure}."
        )
    labels, parts = numbers_of(zip(columns, raws, strict=True))
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
    }
    return TableColumns(
        tuple(columns),
        medians,
        learn_scaling(scaling if scaling in TABLE_SCALINGS else None, there, medians, labels),
        "float32" if is_single else "float64",
        settings,
    )


def _categorical(given: Any, raws: Sequence[RawColumn], names: Sequence[str]) -> list[bool]:
    """Return, for each column, whether it is categorical."""
    if given is None:
        return [False] * len(raws)
    if isinstance(given, str):
        return [raw.kind in ("category", "bool") for raw in raws]
    chosen = np.asarray(given)
    if chosen.dtype.kind == "b":
        if chosen.shape != (len(raws),):
            raise ValueError(
                f"categorical_features is a mask of shape {chosen.shape}, but X has {len(raws)} "
                "columns: pass a mask with one entry per column."
            )
        return [bool(one) for one in chosen]
    positions = set()
    for entry in given if isinstance(given, list | tuple) else chosen.tolist():
        if isinstance(entry, str) and entry in names:
            positions.add(list(names).index(entry))
        elif isinstance(entry, int | np.integer) and -len(raws) <= entry < len(raws):
            positions.add(int(entry) % len(raws))
        else:
            shown = ", ".join(map(repr, names[:_NAMED]))
            raise ValueError(
                f"categorical_features has {entry!r}, but X has {len(raws)} columns: "
                f"{shown}{', ...' if len(names) > _NAMED else ''}. Pass their names or positions."
            )
    return [i in positions for i in range(len(raws))]


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
    raws = read_table(X)
    is_empty = not raws or not len(raws[0].values)
    if is_empty and (not raws or exchange is None):
        n, what = (0, "sample") if raws else (len(X), "feature")
        raise ValueError(
            f"Found array with 0 {what}(s) (shape=({n}, {len(raws)})) while a minimum of 1 is "
            "required."
        )
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
    mine = [replace(raw, values=raw.values[rows]) for raw in raws]
    return [join_columns(parts) for parts in zip(*exchange(mine), strict=True)]
