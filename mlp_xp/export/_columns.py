"""Columns of a table as inputs of an ONNX graph, which does what scikit-learn's transformers do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlp_xp.datasets._dataset import Column

__all__ = ["column_inputs"]


def column_inputs(columns: Sequence[Column], precision: str) -> tuple[dict[str, Any], Any]:
    """Return the inputs of a graph by name, and the rows that the network sees.

    A table of numbers alone is one input, ``X : (N, columns)``; otherwise each column is one of its
    own, of shape ``(N,)``.
    """
    import ndonnx

    dtype = getattr(ndonnx, precision)
    numbers = [column for column in columns if column.levels is None]
    if len(numbers) == len(columns):
        x = ndonnx.argument(shape=("N", len(columns)), dtype=dtype)
        return {"X": x}, _filled(numbers, x, precision)
    inputs = {
        column.name: ndonnx.argument(
            shape=("N",), dtype=dtype if column.levels is None else ndonnx.utf8
        )
        for column in columns
    }
    rows = {name: ndonnx.reshape(values, (-1, 1)) for name, values in inputs.items()}
    parts = []
    if numbers:
        x = ndonnx.concat([rows[column.name] for column in numbers], axis=1)
        parts.append(_filled(numbers, x, precision))
    for column in columns:
        if column.levels is not None:
            levels = ndonnx.asarray(np.asarray(column.levels))
            parts.append(ndonnx.astype(rows[column.name] == levels, dtype))
    return inputs, ndonnx.concat(parts, axis=1)


def _filled(numbers: Sequence[Column], x: Any, precision: str) -> Any:
    """Return numbers with medians in their holes, and where the holes were."""
    import ndonnx

    medians = np.asarray([column.median for column in numbers], dtype=precision)
    is_gap = ndonnx.isnan(x)
    parts = [ndonnx.where(is_gap, ndonnx.asarray(medians), x)]
    if places := [i for i, column in enumerate(numbers) if column.has_gaps]:
        shown = ndonnx.take(is_gap, ndonnx.asarray(np.asarray(places)), axis=1)
        parts.append(ndonnx.astype(shown, getattr(ndonnx, precision)))
    return ndonnx.concat(parts, axis=1)
