"""The columns of a table as inputs of an ONNX graph, and their encoding as a matrix."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import ndonnx
import numpy as np
import spox.opset.ai.onnx.ml.v3 as operators

from mlp_xp._utils.columns.categories import MISSING
from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.estimators.tables.kinds import CategoryColumn, EmptyColumn, NumberColumn
from mlp_xp.estimators.tables.scaling import Affine
from mlp_xp.export._normal_scores import (
    EDGE,
    MIDDLE_BOTTOM,
    MIDDLE_TOP,
    TAIL_BOTTOM,
    TAIL_TOP,
    round_jumps,
)

_WHOLE = "X"


def graph_inputs(columns: TableColumns, precision: str) -> dict[str, Any]:
    """Return the inputs of a graph by name.

    A table that contains only numbers is one input, ``X : (N, columns)``. Otherwise, each column is
    an input of shape ``(N,)`` with text or numbers; a date has an input for each of its numbers.
    Columns that were empty during the fit have no input.
    """
    dtype = getattr(ndonnx, precision)
    if all(isinstance(column, NumberColumn) for column in columns.columns):
        return {_WHOLE: ndonnx.argument(shape=("N", len(columns.columns)), dtype=dtype)}
    inputs = {}
    for column in columns.columns:
        if isinstance(column, EmptyColumn):
            continue
        is_text = isinstance(column, CategoryColumn) and column.is_text
        kind = ndonnx.utf8 if is_text else dtype
        for name in column.number_names or (column.name,):
            inputs[name] = ndonnx.argument(shape=("N",), dtype=kind)
    return inputs


def encode_columns(columns: TableColumns, inputs: dict[str, Any], precision: str) -> Any:
    """Encode a graph's inputs as the network's input matrix, ``(N, inputs)``."""
    dtype = getattr(ndonnx, precision)
    parts = _numbers(columns, inputs, dtype) if len(columns.medians) else []
    codes, first = [], 0
    for column in columns.columns:
        if not isinstance(column, CategoryColumn):
            continue
        found = _codes(column, inputs[column.name])
        if column.is_embedded:
            codes.append(ndonnx.reshape(ndonnx.astype(found + first, dtype), (-1, 1)))
            first += column.n_codes
        else:
            rows = ndonnx.asarray(column.rows.astype(precision))
            parts.append(ndonnx.take(rows, found, axis=0))
    return ndonnx.concat([*parts, *codes], axis=1)


def _numbers(columns: TableColumns, inputs: dict[str, Any], dtype: Any) -> list[Any]:
    """Return the imputed and scaled numbers, and missing-value indicators."""
    names = [name for column in columns.columns for name in column.number_names]
    if _WHOLE in inputs and inputs[_WHOLE].ndim == 2:
        x = inputs[_WHOLE]
    else:
        x = ndonnx.concat([ndonnx.reshape(inputs[name], (-1, 1)) for name in names], axis=1)

    def put(array: np.ndarray) -> Any:
        return ndonnx.astype(ndonnx.asarray(array), dtype)

    is_gap, medians, scaling = ndonnx.isnan(x), columns.medians, columns.scaling
    if scaling is not None:
        medians = scaling.apply(medians[None, :].copy())
    if isinstance(scaling, Affine):
        # Subtract the rounded shift, then its rounding error, which matters e.g. for years.
        shift = scaling.shift.astype(dtype.unwrap_numpy())
        x = (x - put(shift) - put(scaling.shift - shift)) * put(scaling.scale)
        if scaling.is_clipped:
            # Limit numbers whose squares overflow; the result is the bound to the last bit.
            x = ndonnx.clip(x, -Affine.largest, Affine.largest)
            x = x / ndonnx.sqrt(1.0 + (x / Affine.bound) ** 2)
    elif scaling is not None:
        quantiles = round_jumps(scaling.quantiles, dtype.unwrap_numpy())
        x = ndonnx.astype(_normal_scores(quantiles, ndonnx.astype(x, ndonnx.float64)), dtype)
    filled = ndonnx.where(is_gap, put(medians), x)
    if not columns.indicators:
        return [filled]
    shown = ndonnx.take(is_gap, ndonnx.asarray(np.asarray(columns.indicators)), axis=1)
    return [filled, ndonnx.astype(shown, dtype)]


def _normal_scores(quantiles: np.ndarray, x: Any) -> Any:
    """Transform numbers ``(N, numbers)`` like scikit-learn's QuantileTransformer, in float64."""
    columns = []
    for place, edges in enumerate(quantiles.T):
        value = x[:, place : place + 1]
        is_passed = ndonnx.astype(value > ndonnx.asarray(edges), ndonnx.int64)
        is_reached = ndonnx.astype(value >= ndonnx.asarray(edges), ndonnx.int64)
        position = ndonnx.sum(is_passed + is_reached, axis=1)
        level, slope, start = (
            ndonnx.reshape(ndonnx.take(ndonnx.asarray(row), position, axis=0), (-1, 1))
            for row in _lines(edges)
        )
        columns.append(level + slope * (value - start))
    level = ndonnx.concat(columns, axis=1)
    level = ndonnx.where(x + EDGE > ndonnx.asarray(quantiles[-1]), 1.0, level)
    level = ndonnx.where(x - EDGE < ndonnx.asarray(quantiles[0]), 0.0, level)
    return _normal_quantile(ndonnx.clip(level, EDGE, 1.0 - EDGE))


def _lines(edges: np.ndarray) -> np.ndarray:
    """Return the level, slope and start of each line segment, one column per position of x.

    The position is the number of edges below x plus the number of edges that are at most x. If
    several edges are equal to x, the level is the mean of their levels.
    """
    levels = np.linspace(0.0, 1.0, len(edges))
    gaps = np.diff(edges)
    lines = np.zeros((3, 2 * len(edges) + 1))
    slopes = np.diff(levels) / np.where(gaps > 0.0, gaps, np.inf)
    lines[:, 2:-1:2] = levels[:-1], slopes, edges[:-1]
    first, last = (np.searchsorted(edges, edges, side) for side in ("left", "right"))
    lines[0, first + last] = 0.5 * (levels[first] + levels[last - 1])
    return lines


def _normal_quantile(p: Any) -> Any:
    """Return quantiles of the normal distribution in float64 precision, for p of at least 1e-11."""
    center = p - 0.5
    r = 0.180625 - center * center
    middle = center * _polynomial(MIDDLE_TOP, r) / _polynomial(MIDDLE_BOTTOM, r)
    r = ndonnx.sqrt(-ndonnx.log(ndonnx.minimum(p, 1.0 - p))) - 1.6
    tail = _polynomial(TAIL_TOP, r) / _polynomial(TAIL_BOTTOM, r)
    tail = ndonnx.where(center < 0.0, -tail, tail)
    return ndonnx.where(ndonnx.abs(center) <= 0.425, middle, tail)


def _polynomial(coefficients: list[float], x: Any) -> Any:
    return functools.reduce(lambda y, coefficient: y * x + coefficient, coefficients)


def _missing_texts() -> list[str]:
    """Return the words for missing values, in small and large letters."""
    spelled = [itertools.product(*zip(word, word.upper(), strict=True)) for word in sorted(MISSING)]
    return sorted({"".join(letters) for words in spelled for letters in words})


def _codes(column: CategoryColumn, values: Any) -> Any:
    """Return the code of each row; NaN, empty text and words such as "NA" are missing."""
    missing = column.n_codes - 1
    if column.is_text:
        if "" in column.values and column.has_missing:
            raise ValueError(
                f"{column.name!r} has empty text and missing values, which a graph cannot tell "
                "apart: fit again without one of them."
            )
        codes = dict.fromkeys(_missing_texts(), missing)
        codes |= {str(value): code for code, value in enumerate(column.values, 1)}
        table: Any = {"keys_strings": [*codes], "values_int64s": [*codes.values()]}
        found = operators.label_encoder(values.unwrap_spox(), default_int64=0, **table)
        return ndonnx.asarray(found)
    if len(np.unique(np.asarray(column.values, values.dtype.unwrap_numpy()))) < missing - 1:
        raise ValueError(
            f"{column.name!r} has categories that are equal in float32: export with "
            "precision='float64', or fit on text."
        )
    levels = ndonnx.astype(ndonnx.asarray(np.asarray(column.values)), values.dtype)
    is_level = ndonnx.astype(ndonnx.reshape(values, (-1, 1)) == levels, ndonnx.int64)
    known = ndonnx.sum(is_level * ndonnx.asarray(np.arange(1, missing)), axis=1)
    return ndonnx.where(ndonnx.isnan(values), ndonnx.asarray(missing), known)
