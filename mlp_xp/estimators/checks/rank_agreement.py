"""The agreement of the ranks of a distributed fit on settings and samples."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, TypeVar, cast

import numpy as np
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length

from mlp_xp._utils.optional import install_command
from mlp_xp.backends import Backend, namespace_backend, to_numpy
from mlp_xp.distributed import Alone, Distributed, join_ranks
from mlp_xp.estimators.checks.keywords import check_fit_keywords
from mlp_xp.estimators.checks.validation import check_weights, check_x, check_y, host
from mlp_xp.training.data.rows import Shard, take_rows

__all__ = [
    "agree_on_backend",
    "agree_on_samples",
    "agree_on_settings",
    "agreed_generator",
    "join_samples",
    "validating_on_all_ranks",
]

_Method = TypeVar("_Method", bound=Callable[..., Any])

# Parameters that may differ: only rank 0 prints and calls back, and each rank has its own device.
_OWN = {"callbacks", "verbose", "device", "placement", "tta"}
_FEW = 16  # Rows of X that are compared.
_NUMBERS = "biufc"


def validating_on_all_ranks(fit: _Method) -> _Method:
    """Return a method that fits, which raises for a wrong parameter of one rank on all."""

    @functools.wraps(fit)
    def method(self: Any, *arguments: Any, **settings: Any) -> Any:
        if settings:
            check_fit_keywords(fit, self, settings)
        if isinstance(self.distributed, str | Distributed):
            with join_ranks(self.distributed).sharing_errors():
                self._validate_params()
        return fit(self, *arguments, **settings)

    return cast(_Method, method)


def agree_on_settings(ranks: Alone, params: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raise ValueError unless all ranks have the same parameters, and the same other facts."""
    from mlp_xp.estimators.fitting.resuming import (
        text_of,  # It reads files, which an import needs not.
    )

    texts = {name: text_of(value) for name, value in params.items() if name not in _OWN}
    _agree(ranks, texts | {name: str(value) for name, value in facts.items()})


def agree_on_backend(ranks: Alone, backend: Backend) -> None:
    """Raise ValueError unless all ranks do the same operations, and so talk in the same order."""
    if ranks.size > 1:
        texts = {"the backend": backend.name, "machine code": str(backend.has_machine_code)}
        _agree(ranks, texts, f", e.g. numba on each ({install_command('fast')})")


def agree_on_samples(ranks: Alone, X: Any, y: np.ndarray, weights: Any, suffix: str) -> None:
    """Raise ValueError unless all ranks have the same samples, as far as can be told at once.

    Compared are shapes and dtypes, all of y and of the weights, and a few rows of X.
    """
    if ranks.size > 1:
        texts = {f"X{suffix}": _kind(X), f"some rows of X{suffix}": _digest_of_rows(X)}
        for name, values in (("y", y), ("sample_weight", weights)):
            kind = None if values is None else f"{values.dtype} of shape {values.shape}"
            texts[f"{name}{suffix}"] = str(kind)
            texts[f"the values of {name}{suffix}"] = "" if values is None else _digest(values)
        cure = ", or its own rows, with Distributed(data='sharded')"
        _agree(ranks, texts, cure)


def agreed_generator(ranks: Alone, random_state: Any) -> Any:
    """Return the random state of rank 0, unless it is a number, which all ranks have."""
    if ranks.size == 1 or isinstance(random_state, Integral):
        return random_state
    return ranks.first(check_random_state(random_state) if ranks.rank == 0 else None)


def join_samples(
    ranks: Alone, model: Any, X: Any, y: Any, sample_weight: Any, *, reset: bool, suffix: str
) -> tuple[Shard, np.ndarray, np.ndarray | None]:
    """Check the rows of this rank, and return the samples of all ranks.

    Parameters
    ----------
    ranks : Alone
    model : estimator
    X, y, sample_weight
        For this rank; it may have no rows, if y has the right number of axes.
    reset : bool
        As for `check_x`.
    suffix : str
        Suffix of the names in errors.

    Returns
    -------
    Shard
        The rows of this rank.
    (samples,) or (samples, outputs) array
    (samples,) array or None
        Targets and weights of all ranks.
    """
    n_rows = _count(X)
    x = check_x(model, X if n_rows else _stand_in(X), reset=reset)
    y = host(y)
    y = y.toarray() if sparse.issparse(y) else np.asarray(y)
    weights = None if sample_weight is None else np.asarray(host(sample_weight))
    check_consistent_length(np.empty((n_rows, 0)), y, weights)
    _agree(
        ranks,
        {
            f"the features of X{suffix}": str(x.shape[1]),
            f"the dtype of X{suffix}": str(x.dtype).rpartition(".")[2],
            f"the library of X{suffix}": _library(x),
        },
    )
    parts = ranks.exchange((n_rows, y, weights))
    _check_targets(parts, suffix)
    counts = [n for n, _, _ in parts]
    total, start = sum(counts), sum(counts[: ranks.rank])
    if not total:
        raise ValueError(f"X{suffix} has no rows, and no rank has a row: give at least one sample.")
    owned = np.full(total, -1, dtype=np.int32)
    owned[start : start + n_rows] = np.arange(n_rows)
    y = check_y(model, np.concatenate([y for n, y, _ in parts if n] or [y]), total, f"y{suffix}")
    name = f"sample_weight{suffix}"
    all_weights = None if weights is None else np.concatenate([w for _, _, w in parts])
    return Shard(x, owned), y, check_weights(all_weights, total, name=name)


def _agree(ranks: Alone, texts: dict[str, str], cure: str = "") -> None:
    """Raise ValueError on every rank if the texts of one differ from the texts of rank 0."""
    digests = ranks.exchange(hashlib.sha256(repr(texts).encode()).digest())
    if len(set(digests)) == 1:
        return
    first, *others = ranks.exchange(texts)
    for rank, found in enumerate(others, 1):
        names = [name for name in first | found if first.get(name) != found.get(name)]
        if names:
            differences = ", ".join(
                f"{name}={found.get(name)} where rank 0 has {first.get(name)}" for name in names
            )
            raise ValueError(
                f"rank {rank} of {ranks.size} has {differences}: give all ranks the same{cure}."
            )


def _check_targets(parts: list[tuple[int, np.ndarray, np.ndarray | None]], suffix: str) -> None:
    """Raise ValueError for targets that do not make one array, or weights of some ranks alone."""
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
    """Return a row of zeros for data without any: nothing is computed from it."""
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
