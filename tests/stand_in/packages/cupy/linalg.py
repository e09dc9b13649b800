"""Linear algebra, which cuSOLVER computes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.linalg import LinAlgError

from cupy._array import ndarray
from cupy._operations import launch_all, read_back
from cupy._products import matmul, refuse_capture
from cupy._signatures import define

_SOLVERS = """
cholesky(a)
qr(a, mode='reduced')
svd(a, full_matrices=True, compute_uv=True)
eigh(a, UPLO='L')
eigvalsh(a, UPLO='L')
norm(x, ord=None, axis=None, keepdims=False)
det(a)
slogdet(a)
matrix_rank(M, tol=None)
solve(a, b)
lstsq(a, b, rcond=None)
inv(a)
pinv(a, rcond=1e-15)
"""


def _solver(name: str) -> Callable[..., Any]:
    function = getattr(np.linalg, name)

    def body(**settings: Any) -> Any:
        first = next(iter(settings))
        arrays = [value for value in settings.values() if isinstance(value, ndarray)]
        if not isinstance(settings[first], ndarray):
            raise TypeError(f"expected ndarray, got {type(settings[first])}")
        refuse_capture()
        views = {k: v._a if isinstance(v, ndarray) else v for k, v in settings.items()}
        # The values decide what the results are: a factorization of zeros may not exist.
        found = function(views.pop(first), **views)
        if name in ("lstsq", "matrix_rank"):
            read_back(name, *arrays)
        if isinstance(found, tuple):
            return tuple(_computed(name, np.asarray(value), arrays) for value in found)
        return _computed(name, np.asarray(found), arrays)

    return body


def _computed(name: str, values: np.ndarray, arrays: list[ndarray]) -> ndarray:
    new = ndarray(values.shape, values.dtype)
    target = new._a

    def run() -> None:
        target[...] = values

    launch_all(name, run, arrays, [new], n=2)
    return new


globals().update(define(_SOLVERS, _solver, "cupy.linalg"))
__all__ = [
    "LinAlgError",
    "matmul",
    *(line.partition("(")[0] for line in _SOLVERS.split("\n") if line),
]
