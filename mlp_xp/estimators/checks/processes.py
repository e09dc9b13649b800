"""The processes of a fit, and what must be alike where several train one network."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
from scipy import sparse

from mlp_xp._utils.optional import install_command
from mlp_xp.backends import Backend, to_numpy
from mlp_xp.estimators.checks.keywords import check_fit_keywords
from mlp_xp.recipes.parameters import CLASSIFIER
from mlp_xp.training.data.rows import take_rows
from mlp_xp.training.processes import SINGLE_PROCESS, SingleProcess

__all__ = [
    "advise_numba",
    "describe_backend",
    "describe_params",
    "describe_samples",
    "processes_of",
    "validating",
]

_Method = TypeVar("_Method", bound=Callable[..., Any])

# One process alone prints and calls back, and each has its own device.
_OWN = {name for name, row in CLASSIFIER.items() if row.own_per_rank}
_FEW = 16  # Rows of X that are compared.


def processes_of(setting: Any) -> SingleProcess:
    """Return the processes that the parameter `distributed` asks for."""
    if setting is None:
        return SINGLE_PROCESS
    from mlp_xp.distributed import join_ranks

    return join_ranks(setting)


def validating(fit: _Method) -> _Method:
    """Return a method that fits, which raises for a wrong parameter of one process in all."""

    @functools.wraps(fit)
    def method(self: Any, *arguments: Any, **settings: Any) -> Any:
        if settings:
            check_fit_keywords(fit, self, settings)
        if self.distributed is not None:
            from mlp_xp.distributed import Distributed

            if isinstance(self.distributed, str | Distributed):
                with processes_of(self.distributed).sharing_errors():
                    self._validate_params()
        return fit(self, *arguments, **settings)

    return cast(_Method, method)


def describe_params(params: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """Describe the parameters of a fit, and other facts, as text by name."""
    from mlp_xp.estimators.fitting.resuming import (
        text_of,  # It reads files, which an import needs not.
    )

    texts = {name: text_of(value) for name, value in params.items() if name not in _OWN}
    return texts | {name: str(value) for name, value in facts.items()}


def describe_backend(backend: Backend) -> dict[str, str]:
    """Describe the backend of a fit, as text by name."""
    return {"the backend": backend.name, "machine code": str(backend.has_machine_code)}


def advise_numba() -> str:
    """Return the cure where processes differ in what computes."""
    return f", e.g. numba on each ({install_command('fast')})"


def describe_samples(X: Any, y: np.ndarray, weights: Any, suffix: str) -> dict[str, str]:
    """Describe samples: shapes and dtypes, all of y and of the weights, and a few rows of X."""
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
