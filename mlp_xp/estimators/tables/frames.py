"""Data frames of any library, and the names of their columns."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from narwhals.stable import v2 as narwhals

from mlp_xp._utils.names import alike, list_names
from mlp_xp._utils.sklearn_compat import warn_caller


def as_frame(X: Any) -> Any:
    """Return a data frame with narwhals' interface; raise ValueError if names are not unique."""
    if not getattr(getattr(X, "columns", None), "is_unique", True):
        raise ValueError(
            f"X has duplicate columns, {sorted({*X.columns[X.columns.duplicated()]})}: drop or "
            "rename them, e.g. X = X.loc[:, ~X.columns.duplicated()]."
        )
    return narwhals.from_native(X, eager_only=True)


def has_names(X: Any) -> bool:
    """Whether X is a data frame whose column names are text."""
    if not narwhals.dependencies.is_into_dataframe(X):
        return False
    return all(isinstance(name, str) for name in as_frame(X).columns)


def match_names(X: Any, names: Collection[str], used: Collection[str]) -> Any:
    """Return a frame that has the ``used`` columns, perhaps in another order.

    Warn about columns that are not in ``names``. Raise ValueError if used columns are missing.
    """
    frame = as_frame(X)
    given, known = dict.fromkeys(frame.columns), {*names}
    others = [name for name in given if name not in known]
    if missing := [name for name in names if name in used and name not in given]:
        meant = {near: name for name in missing if (near := alike(name, others))}
        # A pandas frame would rename rows without the keyword; other libraries do not have it.
        keyword = "columns=" if narwhals.dependencies.is_pandas_like_dataframe(X) else ""
        cure = f"did you mean X.rename({keyword}{meant})?" if meant else "add what is missing."
        raise ValueError(f"X lacks columns of the fit, {list_names(missing)}: {cure}")
    if others:
        warn_caller(f"X has columns that the fit did not have, ignored: {list_names(others)}.")
    return frame
