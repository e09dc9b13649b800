"""Rows that a C header contains, and the program that compares its predictions with Python's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlp_xp._utils.columns.kinds import RawColumn
from mlp_xp.compiler.c_expressions import c_literal
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.estimators.tables.kinds import CategoryColumn, Column, DateColumn, EmptyColumn
from mlp_xp.estimators.tables.reading import read_table
from mlp_xp.estimators.tables.scaling import Affine, Quantile
from mlp_xp.export._c_header import Inputs, Names
from mlp_xp.export._c_tables import takes_struct
from mlp_xp.export._c_text import LONGEST, c_part, in_lines, literal

_N_ROWS, _MOST_NUMBERS = 8, 4096


def self_test_rows(state: FittedState, dtype: str) -> np.ndarray:
    """Return rows like the training data, (rows, columns): numbers, or objects for a table."""
    generator = np.random.default_rng(0)
    n_rows = max(1, min(_N_ROWS, _MOST_NUMBERS // max(state.n_columns, 1)))
    if state.columns is not None:
        return _table_rows(state.columns, n_rows, dtype, generator)
    z = generator.standard_normal((n_rows, state.n_columns))
    if state.scaling is not None:
        shift, scale = (np.asarray(a, np.float64) for a in state.scaling[:2])
        z = shift + z / np.where(scale == 0.0, 1.0, scale)
    return z.astype(dtype)


def _table_rows(
    table: TableColumns, n_rows: int, dtype: str, generator: np.random.Generator
) -> np.ndarray:
    rows = np.full((n_rows, len(table.columns)), None, object)
    place = 0
    for i, column in enumerate(table.columns):
        if isinstance(column, CategoryColumn):
            values = [value for value in column.values if len(str(value).encode()) < LONGEST]
            values += ["?-unknown"] if column.is_text else []
            rows[:, i] = [values[k % len(values)] for k in range(i, i + n_rows)]
        elif isinstance(column, DateColumn):
            days = np.datetime64(f"{int(table.medians[place]):04d}-01-01")
            seconds = generator.integers(0, 400 * 86_400, n_rows).astype("timedelta64[s]")
            rows[:, i] = list(days + seconds)
        elif not isinstance(column, EmptyColumn):
            z = generator.standard_normal(n_rows)
            rows[:, i] = _numbers(table, place, z).astype(dtype).astype(np.float64)
        if column.has_missing and n_rows > 1:
            rows[1, i] = None
        place += len(column.number_names)
    return rows


def _numbers(table: TableColumns, place: int, z: np.ndarray) -> np.ndarray:
    """Return unscaled values of a column whose scaled values are about z."""
    scaling = table.scaling
    if isinstance(scaling, Affine):
        return np.asarray(scaling.shift[place] + z / scaling.scale[place])
    if isinstance(scaling, Quantile):
        levels = np.linspace(-2.0, 2.0, len(scaling.quantiles))
        return np.interp(z, levels, scaling.quantiles[:, place])
    return np.asarray(table.medians[place] * (1.0 + 0.1 * z))


def self_test_program(
    names: Names,
    inputs: Inputs,
    table: TableColumns | None,
    rows: np.ndarray,
    expected: np.ndarray,
    tolerance: float,
) -> str:
    """Return the test program's source, which is compiled only with ``-DNAME_TEST``."""
    values: list[list[str]]
    if table is not None and takes_struct(table):
        raws = [
            column.read(raw) for column, raw in zip(table.columns, read_table(rows), strict=True)
        ]
        columns = [
            texts
            for column, raw in zip(table.columns, raws, strict=True)
            for texts in _initializers(column, raw, names.dtype)
        ]
        values = [list(row) for row in zip(*columns, strict=True)]
    else:
        numbers = np.asarray(rows, dtype=np.float64)
        values = [[c_literal(x, names.dtype) for x in row] for row in numbers.tolist()]
    n_rows, n_outputs = expected.shape
    return c_part(
        "test",
        {
            **names.placeholders,
            "row_type": inputs.row_type,
            "row_suffix": inputs.row_suffix,
            "n_rows": n_rows,
            "rows": ",\n        ".join(in_lines(row) for row in values),
            "n_outputs": n_outputs,
            "expected": ",\n        ".join(
                in_lines(c_literal(x, "float64") for x in row) for row in expected.tolist()
            ),
            "argument": inputs.argument.replace("row", "rows[i]"),
            "tolerance": tolerance,
        },
    )


def _initializers(column: Column, raw: RawColumn, dtype: str) -> list[Sequence[str]]:
    """Return the C text of each member of the struct that belongs to a column, for all rows."""
    if isinstance(column, EmptyColumn):
        return []
    if not isinstance(column, CategoryColumn):
        return [[c_literal(x, dtype) for x in part] for part in column.numbers(raw)]
    codes, found = raw.factors
    missing = "NULL" if column.is_text else "NAN"
    texts: list[Any] = [
        literal(str(value)) if column.is_text else c_literal(value, dtype) for value in found
    ]
    return [[[*texts, missing][code] for code in codes.tolist()]]
