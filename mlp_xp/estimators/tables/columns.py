"""The columns of a table as a fit learned them, and a table as the matrix that a network sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import validate_data

from mlp_xp.backends import get_backend, namespace_backend, to_numpy
from mlp_xp.estimators.checks.text_advice import IMPUTE
from mlp_xp.estimators.settings.config import TABLE_SCALINGS
from mlp_xp.estimators.tables.kinds import CategoryColumn, Column, DateColumn, NumberColumn
from mlp_xp.estimators.tables.reading import RawColumn, join_columns, read_table
from mlp_xp.estimators.tables.scaling import Affine, Quantile, learn_scaling
from mlp_xp.nn.blocks import TableInputs

__all__ = ["TableColumns", "encode_table", "learn_columns"]

_MOST_ROWS = 200_000  # Of all processes, from which columns are learned.
_BLOCK = 4096  # Rows of numbers that are converted at once.
_NAMED = 5  # Columns that an error names.


@dataclass(frozen=True, eq=False)
class TableColumns:
    """The columns of a table, and what was learned from the training data.

    The matrix has the numbers first, then indicators of missing ones, then categories in one-hot
    form, and last the codes of the categories that are embedded. A code is the number of the
    category among those of all such columns.

    Parameters
    ----------
    columns : tuple of Column
    medians : (numbers,) float64 array
        That replace missing numbers.
    scaling : Affine, Quantile or None
        Of the numbers.
    dtype : {"float32", "float64"}
        Of the matrix.
    """

    columns: tuple[Column, ...]
    medians: np.ndarray
    scaling: Affine | Quantile | None
    dtype: str

    @property
    def categories(self) -> tuple[int, ...]:
        """The number of codes of each column that is embedded."""
        return tuple(column.n_codes for _, column in self._embedded)

    @property
    def names(self) -> list[str]:
        """The names of the columns, in their order."""
        return [column.name for column in self.columns]

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """The names of the network's inputs, in their order."""
        return tuple(name for _, name in self._inputs)

    @cached_property
    def input_columns(self) -> np.ndarray:
        """For each input of the network the position of its column in the table."""
        return np.asarray([position for position, _ in self._inputs], dtype=np.intp)

    @cached_property
    def _inputs(self) -> list[tuple[int, str]]:
        """The inputs: for each its column and its name."""
        places = list(enumerate(self.columns))
        numbers = [(i, name) for i, column in places for name in column.number_names]
        gaps = [(i, f"{self.columns[i].name} is missing") for i in self._gaps]
        one_hot = [(i, name) for i, column in places for name in column.category_names]
        return [*numbers, *gaps, *one_hot, *((i, column.name) for i, column in self._embedded)]

    @cached_property
    def _embedded(self) -> list[tuple[int, CategoryColumn]]:
        """The columns of categories that are embedded, and their positions."""
        pairs = enumerate(self.columns)
        return [(i, c) for i, c in pairs if isinstance(c, CategoryColumn) and c.is_embedded]

    def block(self, embedding_dim: int) -> TableInputs:
        """Return the block of a network that takes the matrix."""
        n_numbers = len(self.medians)
        n_others = len(self.input_names) - n_numbers - len(self._embedded)
        return TableInputs(n_numbers, n_others, self.categories, embedding_dim)

    @cached_property
    def _gaps(self) -> list[int]:
        """The columns of numbers with an indicator of missing ones."""
        places = enumerate(self.columns)
        return [i for i, column in places if column.number_names and column.has_missing]

    @cached_property
    def indicators(self) -> list[int]:
        """The position among the numbers that each indicator of missing ones looks at."""
        counts = [len(column.number_names) for column in self.columns]
        return [sum(counts[:i]) for i in self._gaps]

    def by_column(self, values: Any) -> np.ndarray:
        """Return the norm over the inputs of each column, e.g. of weights or of a gradient.

        Parameters
        ----------
        values : (..., inputs) array
            E.g. ``model.coefs_[0].T``, or what `input_gradient` returns.

        Returns
        -------
        (..., columns) array
        """
        squares = np.square(to_numpy(values))
        total = np.zeros((*squares.shape[:-1], len(self.columns)), squares.dtype)
        np.add.at(np.moveaxis(total, -1, 0), self.input_columns, np.moveaxis(squares, -1, 0))
        return np.sqrt(total)

    @property
    def untrained_codes(self) -> list[int]:
        """The codes that no sample of the training data has: of unknown and of missing values."""
        codes, first = [], 0
        for _, column in self._embedded:
            codes += [] if column.has_rare else [first]
            first += column.n_codes
            codes += [] if column.has_missing else [first - 1]
        return codes

    def transform(self, X: Any) -> np.ndarray:
        """Return the matrix that the network sees, ``(rows, inputs)``, with missing numbers filled.

        Parameters
        ----------
        X : frame or array-like of shape (samples, features)
            With the columns of the fit, in their order.
        """
        return self.encode(read_table(X), imputes=True)

    def encode(self, raws: Sequence[RawColumn], *, imputes: bool) -> np.ndarray:
        """Return the matrix ``(rows, inputs)`` of a table.

        Parameters
        ----------
        raws : sequence of RawColumn
        imputes : bool
            Whether missing numbers are replaced; they are an error otherwise.

        Raises
        ------
        ValueError
            If a column has other kinds of values than in the fit, infinite ones, or missing ones
            that no setting allows.
        """
        pairs = list(zip(self.columns, raws, strict=True))
        for column, raw in pairs:
            column.check(raw)
        matrix = np.empty((len(raws[0].values), len(self.input_names)), self.dtype)
        self._write_numbers(pairs, matrix, imputes=imputes)
        place = len(self.medians) + len(self._gaps)
        code_place, first_code = len(self.input_names) - len(self._embedded), 0
        for column, raw in pairs:
            if not isinstance(column, CategoryColumn):
                continue
            if column.is_embedded:
                matrix[:, code_place] = column.codes(raw) + first_code
                code_place, first_code = code_place + 1, first_code + column.n_codes
                continue
            end = place + len(column.category_names)
            matrix[:, place:end] = column.rows.astype(self.dtype)[column.codes(raw)]
            place = end
        return matrix

    def _write_numbers(
        self, pairs: list[tuple[Column, RawColumn]], matrix: np.ndarray, *, imputes: bool
    ) -> None:
        """Write numbers and indicators, some rows at a time."""
        numbers: list[np.ndarray] = []
        labels: list[str] = []
        for column, raw in pairs:
            parts = column.numbers(raw)
            numbers += parts
            labels += [raw.label] * len(parts)
        indicators, n = self.indicators, len(numbers)
        if not n:
            return
        for start in range(0, len(matrix), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = np.stack([values[rows] for values in numbers], axis=1).astype(np.float64)
            is_gap = np.isnan(block)
            if np.any(is_gap):
                if not imputes:
                    place = int(np.argmax(np.any(is_gap, axis=0)))
                    row = start + int(np.argmax(is_gap[:, place]))
                    raise ValueError(f"{labels[place]} is missing (NaN) in row {row}: {IMPUTE}.")
                np.copyto(block, self.medians, where=is_gap)
            if not np.all(np.isfinite(block)):
                _check_finite(labels, numbers)
            matrix[rows, :n] = block if self.scaling is None else self.scaling.apply(block)
            matrix[rows, n : n + len(indicators)] = is_gap[:, indicators]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as values that JSON has."""
        return {
            "columns": [column.to_json() for column in self.columns],
            "medians": self.medians.tolist(),
            "scaling": None if self.scaling is None else self.scaling.to_json(),
            "dtype": self.dtype,
        }

    def __repr__(self) -> str:
        counts = np.bincount(self.input_columns, minlength=len(self.columns)).tolist()
        rows = [("column", "kind", "inputs")]
        rows += [(c.name, c.kind, str(n)) for c, n in zip(self.columns, counts, strict=True)]
        widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join(lines)


def _check_finite(labels: Sequence[str], numbers: Sequence[np.ndarray]) -> None:
    for label, values in zip(labels, numbers, strict=True):
        if np.any(is_infinite := np.isinf(values)):
            raise ValueError(
                f"{label} has infinity in row {int(np.argmax(is_infinite))}: replace it, e.g. by "
                "NaN with missing_values='impute'."
            )


def learn_columns(
    raws: Sequence[RawColumn],
    names: Sequence[str],
    categorical: Any,
    *,
    scaling: str | None,
    max_one_hot: float,
    is_single: bool,
) -> TableColumns:
    """Return the columns of the training data.

    Parameters
    ----------
    raws : sequence of RawColumn
    names : sequence of str
    categorical : str, array-like or None
        As the parameter `categorical_features`.
    scaling : str or None
        Of the numbers, one of `TABLE_SCALINGS`.
    max_one_hot : int or inf
        Categories of a column that have an input each, at most; of others there are codes.
    is_single : bool
        Whether the matrix is in float32 whatever the numbers are.

    Raises
    ------
    ValueError
        If a column cannot be an input, or `categorical` names others than there are.
    """
    are_categories = _categorical(categorical, raws, names)
    empty = [name for raw, name in zip(raws, names, strict=True) if raw.is_empty]
    if empty:
        more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
        raise ValueError(
            f"X has columns without any value, {empty[:_NAMED]}{more}: leave them out, e.g. "
            f"X.drop(columns={empty[:_NAMED]})."
        )
    columns: list[Column] = []
    for raw, name, is_category in zip(raws, names, are_categories, strict=True):
        if is_category:
            columns.append(CategoryColumn.learn(name, raw, max_one_hot))
        elif raw.kind == "date":
            columns.append(DateColumn.learn(name, raw))
        elif raw.kind == "category":
            raise ValueError(
                f"{raw.label} has categories: set categorical_features='from_dtype', or name it "
                f"there, categorical_features=[{name!r}, ...]."
            )
        else:
            columns.append(NumberColumn.learn(name, raw))
    pairs = zip(columns, raws, strict=True)
    found = [(raw.label, values) for column, raw in pairs for values in column.numbers(raw)]
    labels, parts = [label for label, _ in found], [values for _, values in found]
    _check_finite(labels, parts)
    there = [values[~np.isnan(values)].astype(np.float64) for values in parts]
    medians = np.asarray([np.median(values) for values in there])
    if not is_single and parts:
        is_single = all(values.dtype == np.float32 for values in parts)
    return TableColumns(
        tuple(columns),
        medians,
        learn_scaling(scaling, there, medians),
        "float32" if is_single else "float64",
    )


def _categorical(given: Any, raws: Sequence[RawColumn], names: Sequence[str]) -> list[bool]:
    """Return which columns are categories."""
    if given is None:
        return [False] * len(raws)
    if isinstance(given, str):
        return [raw.kind in ("category", "bool") for raw in raws]
    chosen = np.asarray(given)
    if chosen.dtype.kind == "b":
        if chosen.shape != (len(raws),):
            raise ValueError(
                f"categorical_features is a mask of shape {chosen.shape}, and X has {len(raws)} "
                "columns: give a mask with an entry for each."
            )
        return [bool(one) for one in chosen]
    positions = set()
    for entry in chosen.tolist():
        if isinstance(entry, str) and entry in names:
            positions.add(list(names).index(entry))
        elif isinstance(entry, int) and -len(raws) <= entry < len(raws):
            positions.add(entry % len(raws))
        else:
            shown = ", ".join(map(repr, names[:_NAMED]))
            raise ValueError(
                f"categorical_features has {entry!r}, and X has {len(raws)} columns: {shown}"
                f"{', ...' if len(names) > _NAMED else ''}. Give their names or positions."
            )
    return [i in positions for i in range(len(raws))]


def encode_table(
    estimator: Any, X: Any, *, reset: bool, exchange: Callable[[Any], list[Any]] | None = None
) -> Any:
    """Return the matrix of a table, in the library and on the device of X if it is an array.

    Parameters
    ----------
    estimator : estimator
        Its `columns_` are learned (``reset``) or used.
    X : frame or array-like of shape (samples, features)
    reset : bool
    exchange : callable, optional
        Where X is a part of the samples, perhaps without rows, it returns the values of all parts.

    Raises
    ------
    ValueError
        If the table is not as in the fit, or cannot be encoded.
    """
    if sparse.issparse(X):
        raise ValueError(
            "X is sparse, and categories, missing numbers, and input_scaling='robust' and "
            "'quantile' need a dense table: give X.toarray(), or leave these settings out."
        )
    is_array = namespace_backend(X) not in (None, "numpy")
    raws = read_table(to_numpy(X) if is_array else X)
    is_empty = not raws or not len(raws[0].values)
    if is_empty and (not raws or exchange is None):
        n, what = (0, "sample") if raws else (len(X), "feature")
        raise ValueError(
            f"Found array with 0 {what}(s) (shape=({n}, {len(raws)})) while a minimum of 1 is "
            "required."
        )
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    if reset:
        names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(len(raws))])
        setting = estimator.input_scaling
        estimator.columns_ = learn_columns(
            raws if exchange is None else _joined(raws, exchange),
            [str(name) for name in names],
            estimator.categorical_features,
            scaling=setting if setting in TABLE_SCALINGS else None,
            max_one_hot=estimator.max_one_hot,
            is_single=estimator.precision not in ("auto", "float64"),
        )
        if setting is not None and setting not in TABLE_SCALINGS and estimator.columns_.categories:
            raise ValueError(
                f"input_scaling is {setting!r}, which mixes all inputs, and columns with more "
                f"categories than max_one_hot={estimator.max_one_hot} are no inputs but codes: set "
                "max_one_hot=float('inf'), or input_scaling='robust'."
            )
    if is_empty:  # No sample takes this row.
        return np.zeros((1, len(estimator.columns_.input_names)), estimator.columns_.dtype)
    matrix = estimator.columns_.encode(raws, imputes=estimator.missing_values != "error")
    return get_backend(X).put(matrix) if is_array else matrix


def _joined(raws: Sequence[RawColumn], exchange: Callable[[Any], list[Any]]) -> list[RawColumn]:
    """Return the columns of all processes, of large tables some rows."""
    n_parts, n_rows = len(exchange(None)), len(raws[0].values)
    rows = np.linspace(0, n_rows - 1, min(n_rows, _MOST_ROWS // n_parts)).astype(np.intp)
    mine = [raw._replace(values=raw.values[rows]) for raw in raws]
    return [join_columns(parts) for parts in zip(*exchange(mine), strict=True)]
