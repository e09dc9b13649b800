"""The columns of a table from JSON, which may be anybody's."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.estimators.tables.columns import TableColumns
from mlp_xp.estimators.tables.kinds import KINDS, CategoryColumn, Column
from mlp_xp.estimators.tables.scaling import Affine, Quantile


def decode_columns(spec: Any) -> TableColumns:
    """Return columns from their JSON; raise ValueError, TypeError or LookupError for any other.

    Examples
    --------
    >>> import pandas
    >>> from mlp_xp import MLPRegressor
    >>> from mlp_xp.estimators.tables.decoding import decode_columns
    >>> X = pandas.DataFrame({"size": [1.0, None, 3.0], "color": ["red", "blue", "red"]})
    >>> settings = {"categorical_features": "from_dtype", "missing_values": "impute"}
    >>> model = MLPRegressor(max_iter=2, learning_rate="cosine", **settings)
    >>> decode_columns(model.fit(X, [1, 2, 3]).columns_.to_json())
    column  kind      inputs
    size    number    2
    color   category  1
    """
    columns = tuple(_column(entry) for entry in spec["columns"])
    medians, dtype = _array(spec["medians"], 1), spec["dtype"]
    n_numbers = sum(len(column.number_names) for column in columns)
    _expect(columns and len(medians) == n_numbers, "medians are not of the columns")
    _expect(dtype in ("float32", "float64"), f"dtype is {dtype!r}")
    return TableColumns(columns, medians, _scaling(spec["scaling"], n_numbers), dtype)


def _column(entry: Any) -> Column:
    fields = {**entry}
    kind = KINDS[fields.pop("kind")]
    if "values" in fields:
        fields["values"] = tuple(fields["values"])
    column = kind(**fields)
    flags = [value for name, value in fields.items() if name.startswith(("has_", "is_"))]
    is_right = isinstance(column.name, str) and all(type(flag) is bool for flag in flags)
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
        _expect(is_right and np.all(np.diff(quantiles, axis=0) >= 0.0), "quantiles do not increase")
        return Quantile(quantiles)
    shift, scale = _array(spec["shift"], 1), _array(spec["scale"], 1)
    _expect(len(shift) == len(scale) == n_numbers, "scaling is not of the numbers")
    _expect(type(spec["is_clipped"]) is bool, "is_clipped is no bool")
    return Affine(shift, scale, spec["is_clipped"])


def _array(values: Any, n_axes: int) -> np.ndarray:
    array = np.asarray(values)
    is_right = array.ndim == n_axes and (array.dtype.kind == "f" or not array.size)
    _expect(is_right and np.all(np.isfinite(array.astype(np.float64))), "numbers are missing")
    return array.astype(np.float64)


def _expect(condition: Any, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
