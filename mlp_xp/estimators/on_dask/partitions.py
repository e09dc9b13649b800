"""Collections of dask as partitions: each a part of X, y and the sample weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from mlp_xp._utils.names import list_names
from mlp_xp._utils.optional import optional
from mlp_xp.estimators.checks.target_column import take_target
from mlp_xp.estimators.checks.validation import SampleArguments


class Part(NamedTuple):
    """A partition's samples, in the memory of a worker; ``number`` counts partitions from 0."""

    number: int
    X: Any
    y: Any
    weights: Any


class Whole(NamedTuple):
    """Samples that are no collection, but in the memory of the process that calls `fit`."""

    part: Part


def is_lazy(value: Any) -> bool:
    """Whether a value is a DataFrame, Series or Array of dask; import nothing."""
    return hasattr(value, "__dask_graph__") and hasattr(value, "to_delayed")


def split(given: SampleArguments, suffix: str = "") -> list[Any] | Whole | None:
    """Return a delayed `Part` for each partition, or the whole of samples in memory.

    Raise ValueError or TypeError if the collections do not match.
    """
    X, y, weights = given
    if X is None and y is None:
        return None
    if suffix and not any(map(is_lazy, given)):
        return Whole(Part(0, *take_target(X, y, f"y{suffix}"), weights))
    names = [f"{name}{suffix}" for name in ("X", "y", "sample_weight")]
    _check_kinds(X, y, weights, names)
    if getattr(X, "ndim", 2) == 2 and hasattr(X, "numblocks") and X.numblocks[1] > 1:
        X = X.rechunk({1: -1})  # A partition has whole rows.
    columns = list(X.columns) if hasattr(X, "columns") else None
    if isinstance(y, str):
        take_target(X._meta, y, names[1])  # An unknown column is an error at once.
    parts = [_parts_of(value) for value in (X, y, weights)]
    n_parts = len(parts[0] or ())
    for name, of_value in zip(names, parts, strict=True):
        if of_value is not None and len(of_value) != n_parts:
            raise ValueError(
                f"{names[0]} has {n_parts} partitions, but {name} has {len(of_value)}: take both "
                "from the same collection, or repartition one of them."
            )
    delayed = optional("dask", "dask").delayed(take_part, pure=True)
    return [
        delayed(i, part, y if of_y is None else of_y, of_weights, columns, suffix)
        for i, (part, of_y, of_weights) in enumerate(
            zip(*(of_value or [None] * n_parts for of_value in parts), strict=True)
        )
    ]


def _check_kinds(X: Any, y: Any, weights: Any, names: Sequence[str]) -> None:
    """Raise TypeError unless all samples are collections, except for a target's name."""
    for name, value in zip(names, (X, y, weights), strict=True):
        if value is None and name == names[1]:
            raise ValueError(f"{name} must be the name of a column of X or a collection, got None.")
        is_fine = value is None or is_lazy(value) or (name == names[1] and isinstance(value, str))
        if not is_fine:
            kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}"
            raise TypeError(
                f"{name} must be a DataFrame or Array of dask, got {kind}: convert it with "
                "dask.dataframe.from_pandas or dask.array.from_array, or use the estimator of "
                "mlp_xp for data in memory."
            )


def _parts_of(value: Any) -> list[Any] | None:
    """Return the delayed partitions of a collection; None for a name, or for nothing."""
    if not is_lazy(value):
        return None
    delayed = value.to_delayed()
    return list(np.ravel(np.asarray(delayed, dtype=object)))


def take_part(
    number: int, X: Any, y: Any, weights: Any, columns: list[Any] | None, suffix: str
) -> Part:
    """Return a partition on its worker; raise ValueError with its number if it is wrong."""
    where = f"partition {number} of X{suffix}"
    if columns is not None and list(X.columns) != columns:
        raise ValueError(
            f"{where} has the columns {list_names(list(X.columns))} where dask expects "
            f"{list_names(columns)}: correct the meta of the collection, or the file."
        )
    try:
        X, y = take_target(X, y, f"y{suffix}")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    for name, values in ((f"y{suffix}", y), (f"sample_weight{suffix}", weights)):
        if values is not None and len(values) != X.shape[0]:
            raise ValueError(
                f"{where} has {X.shape[0]} rows, but {name} has {len(values)}: take both from the "
                "same collection."
            )
    return Part(number, X, y, weights)


def empty(part: Part) -> Part:
    """Return a partition without rows, for a worker that has none."""
    return Part(part.number, *(None if v is None else v[:0] for v in part[1:]))


def join(parts: Sequence[Part]) -> tuple[Any, Any, Any]:
    """Return X, y and the weights of all partitions on a worker."""
    X, y, weights = zip(*(part[1:] for part in parts), strict=True)
    return _concat(X), _concat(y), None if weights[0] is None else _concat(weights)


def _concat(values: Sequence[Any]) -> Any:
    if len(values) == 1:
        return values[0]
    if hasattr(values[0], "iloc"):
        # It unites the categories of the partitions, which pandas does not.
        return optional("dask.dataframe", "dask").methods.concat(list(values))
    if sparse.issparse(values[0]):
        return sparse.vstack(values, format="csr")
    return np.concatenate(values)
