"""The columns of a table as inputs of an ONNX graph, and their encoding as a matrix."""

from __future__ import annotations

from typing import Any

import ndonnx
import numpy as np
import spox.opset.ai.onnx.ml.v3 as operators

from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.estimators.tables.kinds import CategoryColumn, EmptyColumn, NumberColumn
from mlp_xp.estimators.tables.scaling import Affine

_WHOLE = "X"


def graph_inputs(columns: TableColumns, precision: str) -> dict[str, Any]:
    """Return the inputs of a graph by name.

    A table of numbers alone is one, ``X : (N, columns)``. Otherwise each column is one, ``(N,)``:
    text, or numbers in the given precision, and of a date each of its numbers. Columns that were
    empty in the fit are left out.
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
    """Return a graph's inputs as the network's input matrix, ``(N, inputs)``."""
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
    if _WHOLE in inputs and len(inputs) == 1:
        x = inputs[_WHOLE]
    else:
        x = ndonnx.concat([ndonnx.reshape(inputs[name], (-1, 1)) for name in names], axis=1)

    def put(array: np.ndarray) -> Any:
        return ndonnx.astype(ndonnx.asarray(array), dtype)

    is_gap = ndonnx.isnan(x)
    filled, scaling = ndonnx.where(is_gap, put(columns.medians), x), columns.scaling
    if isinstance(scaling, Affine):
        filled = (filled - put(scaling.shift)) * put(scaling.scale)
        if scaling.is_clipped:
            filled = filled / ndonnx.sqrt(1.0 + (filled / Affine.bound) ** 2)
    elif scaling is not None:
        raise ValueError(
            "input_scaling is 'quantile', which ONNX has no operator for: fit with "
            "input_scaling='robust'."
        )
    if not columns.indicators:
        return [filled]
    shown = ndonnx.take(is_gap, ndonnx.asarray(np.asarray(columns.indicators)), axis=1)
    return [filled, ndonnx.astype(shown, dtype)]


def _codes(column: CategoryColumn, values: Any) -> Any:
    """Return the code of each row; empty text is missing, and so is NaN."""
    missing = column.n_codes - 1
    if column.is_text:
        codes = {"": missing} | {value: code for code, value in enumerate(column.values, 1)}
        found = operators.label_encoder(
            values.unwrap_spox(),
            keys_strings=[*map(str, codes)],
            values_int64s=[*codes.values()],
            default_int64=0,
        )
        return ndonnx.asarray(found)
    levels = ndonnx.astype(ndonnx.asarray(np.asarray(column.values)), values.dtype)
    is_level = ndonnx.astype(ndonnx.reshape(values, (-1, 1)) == levels, ndonnx.int64)
    known = ndonnx.sum(is_level * ndonnx.asarray(np.arange(1, missing)), axis=1)
    return ndonnx.where(ndonnx.isnan(values), ndonnx.asarray(missing), known)
