"""Groups of rows, the values of one column, whose intervals and sets are calibrated separately."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from mlp_xp._utils.array_types import Namespace
from mlp_xp._utils.names import error_end, list_names
from mlp_xp.backends import to_numpy
from mlp_xp.training.data.rows import take_rows

Put = Callable[[np.ndarray], Any]  # Returns a host array in a library.
_SHOWN = 5  # The most groups in an error message.


class TooFewHeldOutError(ValueError):
    """The error for intervals or sets of a level for which no or too few samples were held out."""


class GroupColumn(NamedTuple):
    """A column of X whose values are groups, and the inputs of the network that encode it.

    The code of a group is the value itself, or the code of a category, whose ``inputs : (codes,
    len(places))`` are in the columns ``places`` of the encoded matrix. ``labels`` are the names of
    the categories.
    """

    position: int
    name: str
    places: np.ndarray
    inputs: np.ndarray | None = None
    labels: tuple[str, ...] = ()

    def rows_of(self, codes: np.ndarray) -> np.ndarray:
        """Return the inputs of groups, (groups, places)."""
        if self.inputs is None:
            return codes[:, None]
        return self.inputs.take(codes.astype(np.intp), axis=0, mode="clip")

    def codes_of(self, x: Any) -> np.ndarray:
        """Return the code of each row of an encoded matrix, (rows,)."""
        found = take_columns(x, self.places)
        if self.inputs is None:
            return found[:, 0]
        return np.argmax(np.all(found[:, None] == self.inputs.astype(found.dtype), axis=2), axis=1)

    def label(self, code: float) -> str:
        """Return the name of a group for a message."""
        return repr(self.labels[int(code)]) if self.labels else f"{code:g}"


class Groups(NamedTuple):
    """Which of the groups with held-out samples each row is in.

    ``codes : (groups,)`` are sorted, and ``is_in : (rows, groups)`` is boolean. A row of an unknown
    group is in none. It is an array of ONNX, whose values are not known, while a graph is traced.
    """

    column: GroupColumn
    codes: np.ndarray
    is_in: Any

    @classmethod
    def match(
        cls, column: GroupColumn, codes: np.ndarray, matrix: Any, put: Put, *, xp: Namespace
    ) -> Groups:
        """Return the groups of rows, given the inputs that encode the column, (rows, places)."""
        codes = np.unique(codes)
        rows = column.rows_of(codes).astype(codes.dtype)
        parts = [xp.all(matrix == put(row[None]), axis=1) for row in rows]
        return cls(column, codes, xp.stack(parts, axis=1))

    def pick(self, values: Any, put: Put, *, xp: Namespace) -> Any:
        """Return the entry of each row's group, (rows, n), for an array (groups, n).

        For a row of an unknown group, it is NaN.
        """
        is_in = put(self.is_in) if isinstance(self.is_in, np.ndarray) else self.is_in
        found = xp.matmul(xp.astype(is_in, values.dtype), values)
        return xp.where(xp.any(is_in, axis=1)[:, None], found, put(np.asarray(np.nan)))

    def check(self, counts: Sequence[int], needed: int, what: str) -> None:
        """Raise TooFewHeldOutError if a row's group has fewer than ``needed`` held-out samples."""
        is_in, name = self.is_in, self.column.name
        if not isinstance(is_in, np.ndarray):
            is_in = np.eye(len(counts), dtype=bool)  # A graph needs all groups.
        known = np.any(is_in, axis=1)
        cure = (
            "hold out more, e.g. with validation_fraction=0.3, merge small groups in the column, "
            "or calibrate all rows together with coverage_by=None"
        )
        if not np.all(known):
            raise TooFewHeldOutError(
                f"Row {int(np.argmin(known))} of X has a value of `coverage_by={name!r}` that no "
                f"held-out sample has, so there is no error to learn from: {cure}."
            )
        few = np.flatnonzero(np.any(is_in, axis=0) & (np.asarray(counts) < needed))
        if len(few):
            shown = [f"{self.column.label(self.codes[i])} has {counts[i]}" for i in few[:_SHOWN]]
            more = f" and {len(few) - _SHOWN} more groups" if len(few) > _SHOWN else ""
            raise TooFewHeldOutError(
                f"Each group of `coverage_by={name!r}` must have at least {needed} held-out "
                f"samples for {what}, but {', '.join(shown)}{more}: {cure}."
            )


def coverage_column(model: Any) -> GroupColumn | None:
    """Return the column that the parameter `coverage_by` names, or None.

    ``model`` has the attributes that a fit learns from X. Raise ValueError if X has no such column,
    or if it is not made of groups.
    """
    given = getattr(model, "coverage_by", None)
    if given is None:
        return None
    names = names_of_columns(model)
    position = column_position(given, names)
    return column_at(position, names[position], vars(model).get("columns_"))


def column_position(given: str | int, names: Sequence[str]) -> int:
    """Return the position of the column that `coverage_by` names; raise ValueError if none."""
    if isinstance(given, str):
        if given in names:
            return names.index(given)
        raise ValueError(
            f"X has no column {given!r}, which `coverage_by` names{error_end(given, names)} It has "
            f"{list_names(names)}."
        )
    if not -len(names) <= given < len(names):
        raise ValueError(
            f"`coverage_by` must be the position of one of the {len(names)} columns of X, got "
            f"{given}."
        )
    return int(given) % len(names)


def names_of_columns(model: Any) -> list[str]:
    """Return the names of the columns that an estimator or ensemble was fitted on."""
    columns = vars(getattr(model, "estimators_", [model])[0]).get("columns_")
    names = [f"x{i}" for i in range(model.n_features_in_)] if columns is None else columns.names
    return [*map(str, getattr(model, "feature_names_in_", names))]


def column_at(position: int, name: str, columns: Any) -> GroupColumn:
    """Return the column at a position, given the encoding of a table or None."""
    if columns is None:
        return GroupColumn(position, name, np.asarray([position]))
    if (found := columns.category_inputs(position)) is None:
        kind = columns.columns[position].kind
        raise ValueError(
            f"`coverage_by` must be a column of categories, but {name!r} is of the kind {kind!r}: "
            "name it in categorical_features, or make groups of its values, e.g. with pandas.cut."
        )
    return GroupColumn(position, name, *found)


def take_columns(x: Any, places: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return some columns of a matrix on the host."""
    base = getattr(x, "x", x)
    if sparse.issparse(base):
        rows = base[x.rows] if base is not x else base
        return np.asarray(rows[:, places].toarray())
    return to_numpy(take_rows(x, slice(0, x.shape[0])))[:, places]
