"""Functions of CuPy in tables by kind: their signatures here, their arithmetic in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cupy._array import ndarray
from cupy._operations import launch_all, operate, read_back, upload
from cupy._signatures import define

REDUCTIONS = """
sum(a, axis=None, dtype=None, out=None, keepdims=False)
mean(a, axis=None, dtype=None, out=None, keepdims=False)
max(a, axis=None, out=None, keepdims=False)
min(a, axis=None, out=None, keepdims=False)
all(a, axis=None, out=None, keepdims=False)
any(a, axis=None, out=None, keepdims=False)
argmax(a, axis=None, dtype=None, out=None, keepdims=False)
argmin(a, axis=None, dtype=None, out=None, keepdims=False)
count_nonzero(a, axis=None)
var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
round(a, decimals=0, out=None)
"""
# Launches of what takes more than one.
N_LAUNCHES = {"var": 2, "std": 3, "unique": 3}

# A view where NumPy makes one, else a copy.
VIEWS = """
reshape(a, newshape, order='C', *, copy=None)
transpose(a, axes=None)
swapaxes(a, axis1, axis2)
moveaxis(a, source, destination)
expand_dims(a, axis)
broadcast_to(array, shape)
broadcast_arrays(*args)
"""

# One copy for each array.
JOINS = """
concatenate(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
stack(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
"""

# Their results have shapes that depend on values: the host waits.
WAITING = """
unique(ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *,\
 equal_nan=True)
nonzero(a)
"""


def _arrays_only(*values: Any) -> None:
    for value in values:
        if not isinstance(value, ndarray):
            raise TypeError(f"expected ndarray, got {type(value)}")


def reduction(name: str) -> Callable[..., Any]:
    function, n = getattr(np, name), N_LAUNCHES.get(name, 1)

    def body(a: Any, out: Any = None, dtype: Any = None, **settings: Any) -> Any:
        _arrays_only(a)
        if dtype is not None and name not in ("argmax", "argmin"):
            settings["dtype"], dtype = np.dtype(dtype), None
        return operate(name, function, (a,), settings, out=out, n=n, dtype=dtype)

    return body


def view(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def body(**settings: Any) -> Any:
        first, value = next(iter(settings.items()))
        settings.pop(first)
        if settings.get("copy", True) is None:
            settings.pop("copy")
        if "newshape" in settings:
            settings["shape"] = settings.pop("newshape")
        if isinstance(value, tuple):  # *arys.
            _arrays_only(*value)
            found = function(*(a._a for a in value))
            return [a._view(v) for a, v in zip(value, found, strict=True)]
        _arrays_only(value)
        found = function(value._a, **settings)
        if found.size == 0 or np.may_share_memory(found, value._a):
            if name == "broadcast_to":
                found = np.lib.stride_tricks.as_strided(value._a, found.shape, found.strides)
            return value._view(found)
        return operate(name, function, (value,), settings)

    return body


def join(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def body(tup: Any, out: Any = None, dtype: Any = None, **settings: Any) -> Any:
        arrays = tuple(tup)
        for array in arrays:
            if not isinstance(array, ndarray):
                raise TypeError("Only cupy arrays can be concatenated")
        if dtype is not None:
            settings["dtype"] = np.dtype(dtype)
        n = len(arrays)
        if n > 8 and len({a.dtype for a in arrays}) == 1:
            # One launch, with the addresses of the arrays copied from the host.
            upload(np.zeros(n, np.int64))
            n = 1
        return operate(name, function, (arrays,), settings, out=out, n=n)

    return body


def waiting(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def body(**settings: Any) -> Any:
        value = settings.pop(next(iter(settings)))
        _arrays_only(value)
        read_back(name, value, n=N_LAUNCHES.get(name, 2))
        found = function(value._a, **settings)
        return tuple(map(_computed, found)) if isinstance(found, tuple) else _computed(found)

    return body


def _computed(values: np.ndarray) -> ndarray:
    new = ndarray(values.shape, values.dtype)
    target = new._a
    launch_all("gather", lambda: np.copyto(target, values), [], new)
    return new


FUNCTIONS = (
    define(REDUCTIONS, reduction)
    | define(VIEWS, view)
    | define(JOINS, join)
    | define(WAITING, waiting)
)
