"""Targets that are given as the name of a column of X."""

from __future__ import annotations

from typing import Any

from mlp_xp._utils.columns.streams import is_table_stream
from mlp_xp._utils.names import error_end, list_names


def take_scored_target(X: Any, y: Any) -> tuple[Any, Any]:
    """Return X and y like `take_target`, and read the target of a table that is read in parts."""
    if isinstance(y, str) and is_table_stream(X):
        from mlp_xp.estimators.checks.streams import read_target  # Import only for streams.

        return X, read_target(X, y)
    return take_target(X, y)


def take_target(X: Any, y: Any, name: str = "y") -> tuple[Any, Any]:
    """Return X and y; if y names a column of the data frame X, return this column as y."""
    if not isinstance(y, str) or is_table_stream(X):
        return X, y
    from narwhals.stable import v2 as narwhals  # Import only for names of columns.

    if not narwhals.dependencies.is_into_dataframe(X):
        raise ValueError(
            f"{name} must have a target for each sample, got the text {y!r}. To take a column as "
            "target, pass a data frame with this column as X."
        )
    from mlp_xp.estimators.tables.frames import as_frame

    frame = as_frame(X)
    if y not in frame.columns:
        end, shown = error_end(y, map(str, frame.columns)), list_names(frame.columns)
        raise ValueError(f"X has no column {y!r} to use as {name}{end} It has {shown}.")
    series = frame[y]
    if (row := series.is_null().arg_max()) is not None and series.is_null()[row]:
        raise ValueError(
            f"X[{y!r}], the target, is missing in row {row}: leave out such rows, e.g. "
            f"X = X.dropna(subset=[{y!r}]), or X.drop_nulls({y!r}) in polars."
        )
    target = series.to_native()
    is_pandas = hasattr(target, "iloc")
    return frame.drop(y).to_native(), target if is_pandas else series.to_numpy()
