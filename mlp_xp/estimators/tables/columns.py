"""The columns of a table, learned in a fit, and the conversion of tables to matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from itertools import accumulate
from typing import Any

import numpy as np

from mlp_xp._utils.columns.kinds import RawColumn
from mlp_xp._utils.columns.problems import Problems
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.signals.forks import cached_property
from mlp_xp.backends import to_numpy
from mlp_xp.estimators.checks.range import check_range
from mlp_xp.estimators.tables import frames
from mlp_xp.estimators.tables.distribution import ColumnDistribution, decode_distribution
from mlp_xp.estimators.tables.kinds import (
    KINDS,
    CategoryColumn,
    Column,
    EmptyColumn,
    OrderedColumn,
    check_finite,
    check_no_gaps,
    numbers_of,
)
from mlp_xp.estimators.tables.reading import read_named, read_table
from mlp_xp.estimators.tables.scaling import Affine, Quantile
from mlp_xp.nn.blocks import TableInputs

_BLOCK = 4096  # The number of rows that are converted at once.


@dataclass(frozen=True, eq=False)
class TableColumns:
    """The columns of a table, and their encoding learned from the training data.

    The encoded matrix contains numbers, then indicators of missing numbers, then one-hot
    categories, then codes of embedded categories. No two embedded columns have the same code.

    Parameters
    ----------
    columns : tuple of Column
    medians : (numbers,) float64 array
        The values that replace missing numbers.
    scaling : Affine, Quantile or None
        The scaling of the numbers.
    dtype : {"float32", "float64"}
        The dtype of the encoded matrix.
    settings : dict
        The parameters that determine the columns; empty if an earlier version saved the model.
    distributions : tuple of ColumnDistribution or None
        The distribution of each column in the training data; None for a column without values.
        Empty if an earlier version saved the model, or if there are more than 1,000 columns.
    """

    columns: tuple[Column, ...]
    medians: np.ndarray
    scaling: Affine | Quantile | None
    dtype: str
    settings: dict[str, Any] = field(default_factory=dict)
    distributions: tuple[ColumnDistribution | None, ...] = ()

    @property
    def categories(self) -> tuple[int, ...]:
        """The number of codes of each embedded column."""
        return tuple(column.n_codes for _, column in self._embedded)

    @property
    def names(self) -> list[str]:
        """The names of the columns, in order."""
        return [column.name for column in self.columns]

    def renamed(self, names: Sequence[str]) -> TableColumns:
        """Return the columns with new names."""
        pairs = zip(self.columns, names, strict=True)
        return replace(self, columns=tuple(replace(column, name=name) for column, name in pairs))

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """The names of the network's inputs, in order."""
        return tuple(name for _, name in self._inputs)

    @cached_property
    def input_columns(self) -> np.ndarray:
        """For each input, the position of its column in the table."""
        return np.asarray([position for position, _ in self._inputs], dtype=np.intp)

    @cached_property
    def _inputs(self) -> list[tuple[int, str]]:
        """The column and the name of each input."""
        places = list(enumerate(self.columns))
        numbers = [(i, name) for i, column in places for name in column.number_names]
        gaps = [(i, f"{self.columns[i].name} is missing") for i in self._gaps]
        one_hot = [(i, name) for i, column in places for name in column.category_names]
        return [*numbers, *gaps, *one_hot, *((i, column.name) for i, column in self._embedded)]

    @cached_property
    def _embedded(self) -> list[tuple[int, CategoryColumn]]:
        """The embedded categorical columns, and their positions."""
        pairs = enumerate(self.columns)
        return [(i, c) for i, c in pairs if isinstance(c, CategoryColumn) and c.is_embedded]

    @property
    def block(self) -> TableInputs:
        """The first block of the network, which receives the encoded matrix."""
        n_numbers = len(self.medians)
        n_others = len(self.input_names) - n_numbers - len(self._embedded)
        directions = tuple(c.direction for c in self.columns for _ in c.number_names)
        constraints = directions if any(directions) else ()
        return TableInputs(n_numbers, n_others, self.categories, directions=constraints)

    @cached_property
    def _gaps(self) -> list[int]:
        """The positions of numeric columns with an indicator of missing values."""
        places = enumerate(self.columns)
        return [i for i, column in places if column.number_names and column.has_missing]

    @cached_property
    def indicators(self) -> list[int]:
        """The positions of the numbers that have a missing-value indicator."""
        counts = [len(column.number_names) for column in self.columns]
        starts = [0, *accumulate(counts)]
        return [starts[i] for i in self._gaps]

    def by_column(self, values: Any) -> np.ndarray:
        """Return, for each column, the norm of its inputs' weights or gradients.

        Parameters
        ----------
        values : (..., inputs) array
            The result of `input_gradient`, or ``model.coefs_[0].T`` for a model without embeddings.
            The gradient of an embedded category is 0.

        Returns
        -------
        (..., columns) array

        Raises
        ------
        ValueError
            If `values` has a wrong number of inputs.
        """
        squares = np.square(to_numpy(values))
        if squares.shape[-1] != len(self.input_names):
            raise ValueError(
                f"`values` must have {len(self.input_names)} inputs on their last axis, got "
                f"{squares.shape[-1]}: pass the result of input_gradient, or weights of a fit with "
                "max_one_hot=float('inf') and numeric_embedding=None."
            )
        total = np.zeros((*squares.shape[:-1], len(self.columns)), squares.dtype)
        np.add.at(np.moveaxis(total, -1, 0), self.input_columns, np.moveaxis(squares, -1, 0))
        return np.sqrt(total)

    def category_inputs(
        self, position: int
    ) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]] | None:
        """Return the inputs that encode a column of categories, or None for other columns.

        These are their positions, the values for each code, (codes, inputs), and the names of the
        codes, of which the first and the last are for rare or unknown, and for missing values.
        """
        column = self.columns[position]
        if not isinstance(column, CategoryColumn):
            return None
        rows = column.rows
        if column.is_embedded:
            before = sum(c.n_codes for i, c in self._embedded if i < position)
            rows = np.arange(before, before + column.n_codes, dtype=np.float64)[:, None]
        names = "rare or unknown", *map(str, column.values), "missing"
        return np.flatnonzero(self.input_columns == position), rows, names

    @property
    def untrained_codes(self) -> list[int]:
        """The codes for unknown and missing values that do not occur in the training data."""
        codes, first = [], 0
        for _, column in self._embedded:
            codes += [] if column.has_rare else [first]
            first += column.n_codes
            codes += [] if column.has_missing else [first - 1]
        return codes

    def transform(self, X: Any) -> np.ndarray:
        """Return the network's input matrix, ``(rows, inputs)``, with missing numbers imputed.

        Parameters
        ----------
        X : frame or array-like of shape (samples, features)
            A table with the columns of the fit, in any order if they have names.
        """
        return self.encode(self.read(X), imputes=True)

    def read(self, X: Any) -> list[RawColumn]:
        """Return the columns of a table, matched by name if the table and the fit have names."""
        has_names = frames.has_names(X) and self.names != [f"x{i}" for i in range(len(self.names))]
        return self.read_named(X) if has_names else read_table(X)

    def read_named(self, X: Any) -> list[RawColumn]:
        """Return the columns of a frame, matched by name; columns without inputs may be missing."""
        used = {column.name for column in self.columns if not isinstance(column, EmptyColumn)}
        return read_named(X, self.names, used)

    def encode(self, raws: Sequence[RawColumn], *, imputes: bool) -> np.ndarray:
        """Return the matrix ``(rows, inputs)`` of a table.

        Parameters
        ----------
        raws : sequence of RawColumn
        imputes : bool
            Whether to replace missing numbers by medians instead of raising an error.

        Raises
        ------
        ValueError
            If a column has values of a different kind than in the fit, infinite values, or missing
            values that the settings do not allow.
        """
        pairs = self.convert(raws)
        matrix = np.empty((len(raws[0].values), len(self.input_names)), self.dtype)
        self._write_numbers(pairs, matrix, imputes=imputes)
        start = len(self.medians) + len(self._gaps)
        code_place, first_code = len(self.input_names) - len(self._embedded), 0
        for column, raw in pairs:
            if not isinstance(column, CategoryColumn):
                continue
            if column.is_embedded:
                matrix[:, code_place] = column.codes(raw) + first_code
                code_place, first_code = code_place + 1, first_code + column.n_codes
                continue
            end = start + len(column.category_names)
            matrix[:, start:end] = column.rows.astype(self.dtype)[column.codes(raw)]
            start = end
        return matrix

    def convert(self, raws: Sequence[RawColumn]) -> list[tuple[Column, RawColumn]]:
        """Return each column with its values as the kind of the fit; raise ValueError if wrong."""
        pairs: list[tuple[Column, RawColumn]] = []
        problems = Problems()
        for column, raw in zip(self.columns, raws, strict=True):
            with problems.collect():
                pairs.append((column, column.read(raw)))
        problems.raise_error()
        return pairs

    def _write_numbers(
        self, pairs: list[tuple[Column, RawColumn]], matrix: np.ndarray, *, imputes: bool
    ) -> None:
        """Write numbers and indicators of missing values into the matrix, in blocks of rows."""
        labels, numbers = numbers_of(pairs)
        indicators, n = self.indicators, len(numbers)
        if not n:
            return
        for start in range(0, len(matrix), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = np.stack([values[rows] for values in numbers], axis=1).astype(np.float64)
            is_gap = np.isnan(block)
            if np.any(is_gap):
                if not imputes:
                    check_no_gaps(labels, numbers)
                np.copyto(block, self.medians, where=is_gap)
            if not np.all(np.isfinite(block)):
                check_finite(labels, numbers)
            block = block if self.scaling is None else self.scaling.apply(block)
            if self.dtype == "float32":
                check_range(block)
            matrix[rows, :n] = block
            matrix[rows, n : n + len(indicators)] = is_gap[:, indicators]

    def to_json(self) -> dict[str, Any]:
        """Return the columns as JSON values."""
        fields = {} if self.scaling is None else vars(self.scaling)
        scaling = {k: v if isinstance(v, bool) else v.tolist() for k, v in fields.items()}
        return {
            "columns": [column.to_json() for column in self.columns],
            "medians": self.medians.tolist(),
            "scaling": scaling or None,
            "dtype": self.dtype,
            "distributions": [found and found.to_json() for found in self.distributions],
        }

    def __repr__(self) -> str:
        counts = np.bincount(self.input_columns, minlength=len(self.columns)).tolist()
        rows = [("column", "kind", "inputs")]
        for column, n in zip(self.columns, counts, strict=True):
            kind = "left out" if isinstance(column, EmptyColumn) else column.kind
            rows.append((column.name, kind, str(n)))
        widths = [max(map(len, texts)) for texts in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join(lines)


def decode_columns(spec: Any) -> TableColumns:
    """Return columns from JSON; raise ValueError, TypeError or LookupError if invalid."""
    columns = tuple(_column(entry) for entry in spec["columns"])
    medians, dtype = _array(spec["medians"], 1), spec["dtype"]
    n_numbers = sum(len(column.number_names) for column in columns)
    _expect(columns and len(medians) == n_numbers, "medians do not match the columns")
    _expect(dtype in ("float32", "float64"), f"dtype is {dtype!r}")
    # Earlier versions did not save distributions.
    distributions = tuple(map(decode_distribution, spec.get("distributions", [])))
    _expect(len(distributions) in (0, len(columns)), "distributions do not match the columns")
    for column, found in zip(columns, distributions, strict=False):
        is_ordered = isinstance(column, OrderedColumn)
        fits = found is None or (found.low is not None) == is_ordered
        _expect(fits, "distributions do not match the columns")
    scaling = _scaling(spec["scaling"], n_numbers)
    return TableColumns(columns, medians, scaling, dtype, distributions=distributions)


def _column(entry: Any) -> Column:
    fields = {**entry}
    kind = KINDS[fields.pop("kind")]
    if "values" in fields:
        fields["values"] = tuple(fields["values"])
    column = kind(**fields)
    flags = [value for name, value in fields.items() if name.startswith(("has_", "is_"))]
    is_right = isinstance(column.name, str) and all(type(flag) is bool for flag in flags)
    is_right &= type(column.direction) is int and column.direction in (-1, 0, 1)
    if isinstance(column, CategoryColumn):
        types = {type(value) for value in column.values}
        is_right &= types in (set(), {str}, {float}) and len({*column.values}) == len(column.values)
    _expect(is_right, f"columns has {str(entry)[:200]}")
    return column


def _scaling(spec: Any, n_numbers: int) -> Affine | Quantile | None:
    if spec is None:
        return None
    if "quantiles" in spec:
        quantiles = _array(spec["quantiles"], 2)
        is_right = quantiles.shape[1] == n_numbers and len(quantiles) > 1
        _expect(is_right and np.all(np.diff(quantiles, axis=0) >= 0.0), "invalid quantiles")
        return Quantile(quantiles)
    shift, scale = _array(spec["shift"], 1), _array(spec["scale"], 1)
    _expect(len(shift) == len(scale) == n_numbers, "scaling does not match the numeric columns")
    _expect(type(spec["is_clipped"]) is bool, "is_clipped is not a bool")
    return Affine(shift, scale, spec["is_clipped"])


def _array(values: Any, n_axes: int) -> np.ndarray:
    array = np.asarray(values)
    is_right = array.ndim == n_axes and (array.dtype.kind == "f" or not array.size)
    _expect(is_right and np.all(np.isfinite(array.astype(np.float64))), "an array is invalid")
    return array.astype(np.float64)


def _expect(condition: Any, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
