"""The parameter `monotonic_cst`, resolved to the direction of each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlp_xp._utils.columns.problems import ColumnError
from mlp_xp._utils.names import error_end, list_names


def column_directions(given: Any, names: Sequence[str], *, has_names: bool) -> list[int]:
    """Return -1, 0 or 1 for each column, according to `monotonic_cst`.

    Raises
    ------
    ValueError
        If it names a column that X does not have, has a wrong length, or has other values.
    """
    if given is None:
        return [0] * len(names)
    if isinstance(given, Mapping):
        if not has_names:
            raise ValueError(
                "`monotonic_cst` is a dict of column names, but X has none: pass a list with "
                f"-1, 0 or 1 for each of the {len(names)} columns of X, or a data frame."
            )
        for name in given:
            if name not in names:
                shown = f"X has no column {name!r}, which `monotonic_cst` constrains"
                raise ValueError(f"{shown}{error_end(name, names)} It has {list_names(names)}.")
        pairs = [(f"monotonic_cst[{name!r}]", given.get(name, 0)) for name in names]
    else:
        listed = np.asarray(given, dtype=object)
        if listed.shape != (len(names),):
            raise ValueError(
                f"`monotonic_cst` must have -1, 0 or 1 for each of the {len(names)} columns of X, "
                f"got {_counted(listed)}: pass a dict to name only some columns."
            )
        pairs = [(f"monotonic_cst[{i}]", value) for i, value in enumerate(listed.tolist())]
    return [_direction(what, value) for what, value in pairs]


def _counted(listed: np.ndarray) -> str:
    return f"{len(listed)} values" if listed.ndim == 1 else f"an array of shape {listed.shape}"


def _direction(what: str, value: Any) -> int:
    if isinstance(value, str) or np.ndim(value) or value not in (-1, 0, 1):
        raise ValueError(
            f"`{what}` must be 1 if predictions must never decrease as the column grows, -1 if "
            f"they must never increase, or 0, got {value!r}."
        )
    return int(value)


def refuse_constraint(label: str) -> None:
    """Raise ColumnError, since a column of categories has no order."""
    raise ColumnError(
        label,
        "has categories, which have no order, so `monotonic_cst` cannot constrain it",
        "leave the column out of monotonic_cst, or replace its categories by numbers",
    )
