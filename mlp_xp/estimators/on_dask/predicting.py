"""Lazy predictions for collections of dask, partition by partition."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp._utils.names import list_names
from mlp_xp._utils.optional import optional
from mlp_xp.estimators.fitted.scoring import Predictions
from mlp_xp.estimators.fitted.state import fitted_state


def predict_lazily(model: Any, X: Any, method: str, options: dict[str, Any]) -> Any:
    """Return a model's predictions as a Series, DataFrame or Array of dask, or a list of them.

    The rows and the index are as in X. Raise ValueError if X lacks columns.
    """
    kinds = _kinds(model, method, options)
    if not isinstance(kinds, list | tuple):
        return _predict(model, X, method, options, None, kinds)
    found = [_predict(model, X, method, options, i, kind) for i, kind in enumerate(kinds)]
    return type(kinds)(found)


def _kinds(model: Any, method: str, options: dict[str, Any]) -> Any:
    """Return arrays like the predictions, with no rows; a list or tuple if there are several."""
    state = fitted_state(model)
    outputs = np.zeros((1, state.network.widths[-1]), state.dtype)
    loss: Any = state.activating_loss
    stand_in = Predictions(model, loss, state.targets, outputs, state.calibration)
    found = getattr(stand_in, method)(**options)
    if isinstance(found, list | tuple):
        return type(found)(np.asarray(array)[:0] for array in found)
    return np.asarray(found)[:0]


def _predict(
    model: Any, X: Any, method: str, options: dict[str, Any], index: int | None, kind: np.ndarray
) -> Any:
    """Return one array of the predictions, as a lazy collection."""
    dask = optional("dask", "dask")
    call = method, options, index, kind
    if not hasattr(X, "columns"):
        chunks = (X.chunks[0], *((n,) for n in kind.shape[1:]))
        X = X.rechunk({1: -1})
        axes: dict[str, Any] = {"drop_axis": 1} if kind.ndim == 1 else {}
        return X.map_blocks(
            _predict_part, dask.delayed(model), *call, None,
            dtype=kind.dtype, chunks=chunks, meta=kind, **axes,
        )  # fmt: skip
    names = list(getattr(model, "feature_names_in_", X.columns))
    if missing := [name for name in names if name not in X.columns]:
        raise ValueError(f"X lacks columns of the fit, {list_names(missing)}: add what is missing.")
    columns = None if kind.ndim == 1 else _columns(model, method, kind.shape[1])
    meta = _as_frame(kind, X._meta.index[:0], columns)
    return X[names].map_partitions(_predict_part, dask.delayed(model), *call, columns, meta=meta)


def _columns(model: Any, method: str, n: int) -> list[Any]:
    """Return the names of the columns of predictions: classes, or numbers."""
    classes: Any = getattr(model, "classes_", None)
    has_classes = method != "predict" and isinstance(classes, np.ndarray)
    return list(classes) if has_classes else list(range(n))


def _predict_part(
    X: Any,
    model: Any,
    method: str,
    options: dict[str, Any],
    index: int | None,
    kind: np.ndarray,
    columns: list[Any] | None,
) -> Any:
    """Return the predictions for a partition on its worker."""
    found: Any = kind
    if X.shape[0]:
        found = getattr(model, method)(X, **options)
        found = found if index is None else found[index]
    return _as_frame(found, X.index, columns) if hasattr(X, "index") else found


def _as_frame(values: Any, index: Any, columns: list[Any] | None) -> Any:
    """Return predictions as a Series, or as a DataFrame if there are columns."""
    pandas = optional("pandas", "dask")
    if columns is None:
        return pandas.Series(values, index=index)
    return pandas.DataFrame(values, index=index, columns=columns)
