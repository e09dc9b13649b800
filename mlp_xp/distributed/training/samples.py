"""The samples of a distributed fit: identical on all ranks, or gathered from each rank's rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils.validation import check_consistent_length

from mlp_xp.backends import host, namespace_backend, to_numpy
from mlp_xp.training.data.rows import Shard, take_rows
from mlp_xp.training.processes import SingleProcess

_NUMBERS = "biufc"
_FEW = 16  # The number of rows of X that are compared between ranks.


def gather_samples(
    ranks: SingleProcess,
    check: Callable[..., Any],
    given: tuple[Any, Any, Any],
    suffix: str,
    row_numbers: np.ndarray | None = None,
) -> tuple[Shard, np.ndarray, np.ndarray | None]:
    """Return the samples of all ranks: a shard, the targets and the weights.

    A rank may have no rows if its y has the right number of axes. ``check(X, exchange=...)``
    returns the rank's rows, or a placeholder row. ``suffix`` is appended to names in errors.
    ``row_numbers`` are the positions of the rank's rows among all rows, if all ranks pass them; by
    default, rows are in rank order.
    """
    X, y, weights = given
    n_rows = int(X.shape[0]) if hasattr(X, "shape") else len(X)
    checked = check(X, exchange=ranks.exchange)
    y = y.toarray() if sparse.issparse(y) else np.asarray(host(y))
    weights = None if weights is None else np.asarray(host(weights))
    check_consistent_length(np.empty((n_rows, 0)), y, weights)
    library = "sparse rows" if sparse.issparse(checked) else namespace_backend(checked) or "numpy"
    ranks.agree(
        lambda: {
            f"the features of X{suffix}": str(checked.shape[1]),
            f"the dtype of X{suffix}": str(checked.dtype).rpartition(".")[2],
            f"the library of X{suffix}": library,
        }
    )
    parts = ranks.exchange((n_rows, y, weights))
    _check_targets(parts, suffix)
    counts = [n for n, _, _ in parts]
    total, start = sum(counts), sum(counts[: ranks.number])
    if not total:
        raise ValueError(f"X{suffix} is empty on all ranks: pass at least one sample.")
    order: Any = slice(None)
    if row_numbers is not None:
        order = np.argsort(np.concatenate(ranks.exchange(row_numbers)))
    owned = np.full(total, -1, dtype=np.int32)
    mine: Any = slice(start, start + n_rows) if row_numbers is None else row_numbers
    owned[mine] = np.arange(n_rows)
    all_y = np.concatenate([y for n, y, _ in parts if n])[order]
    all_weights = None if weights is None else np.concatenate([w for _, _, w in parts])[order]
    return Shard(checked, owned), all_y, all_weights


def _check_targets(parts: list[tuple[int, np.ndarray, np.ndarray | None]], suffix: str) -> None:
    """Raise ValueError if the ranks' targets do not form one array."""
    given = [(rank, y) for rank, (n, y, _) in enumerate(parts) if n]
    for rank, y in given[1:]:
        first, first_y = given[0]
        is_same = y.shape[1:] == first_y.shape[1:]
        if not is_same or (y.dtype.kind in _NUMBERS) != (first_y.dtype.kind in _NUMBERS):
            raise ValueError(
                f"rank {rank} has y{suffix} of dtype {y.dtype} and shape {y.shape}, but rank "
                f"{first} has dtype {first_y.dtype} and shape {first_y.shape}: pass the same kind "
                "of y on all ranks."
            )


def describe_samples(X: Any, y: np.ndarray, weights: Any, suffix: str) -> dict[str, str]:
    """Describe samples: shapes and dtypes, all of y and the weights, and a few rows of X."""
    texts = {f"X{suffix}": _kind(X), f"some rows of X{suffix}": _digest_of_rows(X)}
    for name, values in (("y", y), ("sample_weight", weights)):
        kind = None if values is None else f"{values.dtype} of shape {values.shape}"
        texts[f"{name}{suffix}"] = str(kind)
        texts[f"the values of {name}{suffix}"] = "" if values is None else _digest(values)
    return texts


def _kind(X: Any) -> str:
    return f"{X.dtype} of shape {tuple(X.shape)}" + (", sparse" if sparse.issparse(X) else "")


def _digest_of_rows(X: Any) -> str:
    rows = np.unique(np.linspace(0, X.shape[0] - 1, _FEW).astype(np.int64))
    if sparse.issparse(X):
        some = X[rows]
        return _digest(some.data, some.indices, some.indptr)
    return _digest(to_numpy(take_rows(X, rows)))


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        if array.dtype == object:
            digest.update(repr(array.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]
