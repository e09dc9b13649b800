"""The samples of a distributed fit to which each rank passes its own rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_consistent_length

from mlp_xp.backends import namespace_backend
from mlp_xp.estimators.checks.validation import (
    asks_for_table,
    check_weights,
    check_x,
    check_y,
    host,
)
from mlp_xp.training.data.rows import Shard
from mlp_xp.training.processes import SingleProcess

__all__ = ["join_samples"]

_NUMBERS = "biufc"


def join_samples(
    ranks: SingleProcess,
    model: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    *,
    reset: bool,
    suffix: str,
) -> tuple[Shard, np.ndarray, np.ndarray | None]:
    """Check the rows of this rank, and return the samples of all ranks: shard, targets, weights.

    A rank may have no rows, if y has the right number of axes. ``suffix`` ends the names in errors.
    """
    n_rows = _count(X)
    is_table = asks_for_table(model)
    given = X if n_rows or is_table else _stand_in(X)
    x = check_x(model, given, reset=reset, exchange=ranks.exchange if is_table else None)
    y = host(y)
    y = y.toarray() if sparse.issparse(y) else np.asarray(y)
    weights = None if sample_weight is None else np.asarray(host(sample_weight))
    check_consistent_length(np.empty((n_rows, 0)), y, weights)
    ranks.agree(
        lambda: {
            f"the features of X{suffix}": str(x.shape[1]),
            f"the dtype of X{suffix}": str(x.dtype).rpartition(".")[2],
            f"the library of X{suffix}": _library(x),
        }
    )
    parts = ranks.exchange((n_rows, y, weights))
    _check_targets(parts, suffix)
    counts = [n for n, _, _ in parts]
    total, start = sum(counts), sum(counts[: ranks.number])
    if not total:
        raise ValueError(f"X{suffix} has no rows, and no rank has a row: give at least one sample.")
    owned = np.full(total, -1, dtype=np.int32)
    owned[start : start + n_rows] = np.arange(n_rows)
    y = check_y(model, np.concatenate([y for n, y, _ in parts if n] or [y]), total, f"y{suffix}")
    name = f"sample_weight{suffix}"
    all_weights = None if weights is None else np.concatenate([w for _, _, w in parts])
    return Shard(x, owned), y, check_weights(all_weights, total, name=name)


def _check_targets(parts: list[tuple[int, np.ndarray, np.ndarray | None]], suffix: str) -> None:
    """Raise ValueError if targets do not form one array, or only some ranks have weights."""
    given = [(rank, y) for rank, (n, y, _) in enumerate(parts) if n]
    for rank, y in given[1:]:
        first, first_y = given[0]
        is_same = y.shape[1:] == first_y.shape[1:]
        if not is_same or (y.dtype.kind in _NUMBERS) != (first_y.dtype.kind in _NUMBERS):
            raise ValueError(
                f"rank {rank} has y{suffix} of {y.dtype} and shape {y.shape}, and rank {first} of "
                f"{first_y.dtype} and shape {first_y.shape}: give all ranks the same kind."
            )


def _count(X: Any) -> int:
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)


def _stand_in(X: Any) -> Any:
    """Return a row of zeros for data without rows; it is not used in computations."""
    if sparse.issparse(X):
        return sparse.csr_array((1, X.shape[1]), dtype=X.dtype)
    if namespace_backend(X) not in (None, "numpy") or not hasattr(X, "shape"):
        raise ValueError(
            "X has no rows. A rank of a distributed fit may have none, as a NumPy array of shape "
            "(0, features)."
        )
    if hasattr(X, "reindex"):  # A data frame keeps its names.
        return X.reindex(range(1), fill_value=0)
    return np.zeros((1, X.shape[1]), X.dtype)


def _library(x: Any) -> str:
    return "sparse rows" if sparse.issparse(x) else namespace_backend(x) or "numpy"
