"""Functions of CuPy in tables by kind: their signatures here, their arithmetic in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cupy._array import ndarray
from cupy._operations import launch_all, operate, read_back, upload
from cupy._signatures import define

REDUCTIONS = """
sum(a, axis=None, dtype=None, out=None, keepdims=False)
prod(a, axis=None, dtype=None, out=None, keepdims=False)
mean(a, axis=None, dtype=None, out=None, keepdims=False)
nansum(a, axis=None, dtype=None, out=None, keepdims=False)
nanmean(a, axis=None, dtype=None, out=None, keepdims=False)
max(a, axis=None, out=None, keepdims=False)
min(a, axis=None, out=None, keepdims=False)
all(a, axis=None, out=None, keepdims=False)
any(a, axis=None, out=None, keepdims=False)
argmax(a, axis=None, dtype=None, out=None, keepdims=False)
argmin(a, axis=None, dtype=None, out=None, keepdims=False)
count_nonzero(a, axis=None)
var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
cumsum(a, axis=None, dtype=None, out=None)
cumprod(a, axis=None, dtype=None, out=None)
median(a, axis=None, out=None, overwrite_input=False, keepdims=False)
trace(a, offset=0, axis1=0, axis2=1, dtype=None, out=None)
"""
# Launches of what takes more than one.
N_LAUNCHES = {
    **dict.fromkeys(
        ["var", "cumsum", "cumprod", "nanmean", "sort", "argsort", "tril", "triu", "pad", "roll"], 2
    ),
    **dict.fromkeys(["std", "isin", "unique", "bincount"], 3),
    **dict.fromkeys(["median"], 4),
    **dict.fromkeys(["cross"], 6),
}

# A view where NumPy makes one, else a copy.
VIEWS = """
reshape(a, newshape, order='C', *, copy=None)
ravel(a, order='C')
transpose(a, axes=None)
permute_dims(a, axes=None)
matrix_transpose(x, /)
swapaxes(a, axis1, axis2)
moveaxis(a, source, destination)
squeeze(a, axis=None)
expand_dims(a, axis)
broadcast_to(array, shape)
flip(a, axis=None)
diagonal(a, offset=0, axis1=0, axis2=1)
real(val)
imag(val)
broadcast_arrays(*args)
"""

# One launch, or as many as N_LAUNCHES says, from arrays alone.
PLAIN = """
clip(a, a_min, a_max, out=None)
sort(a, axis=-1, kind=None)
argsort(a, axis=-1, kind=None)
searchsorted(a, v, side='left', sorter=None)
isin(element, test_elements, assume_unique=False, invert=False)
isclose(a, b, rtol=1e-05, atol=1e-08, equal_nan=False)
nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None)
diff(a, n=1, axis=-1, prepend=None, append=None)
tile(A, reps)
repeat(a, repeats, axis=None)
roll(a, shift, axis=None)
tril(m, k=0)
triu(m, k=0)
diag(v, k=0)
outer(a, b, out=None)
cross(a, b, axisa=-1, axisb=-1, axisc=-1, axis=None)
pad(array, pad_width, mode='constant', **kwargs)
"""

# One copy for each array.
JOINS = """
concatenate(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
concat(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
stack(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
"""

# Their results have shapes that depend on values: the host waits.
WAITING = """
unique(ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *,\
 equal_nan=True)
nonzero(a)
bincount(x, weights=None, minlength=None)
setdiff1d(ar1, ar2, assume_unique=False)
union1d(arr1, arr2)
"""


def _arrays_only(*values: Any) -> None:
    for value in values:
        if not isinstance(value, ndarray):
            raise TypeError(
                f"Argument 'a' has incorrect type (expected ndarray, got {type(value)})"
            )


def reduction(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def body(a: Any, out: Any = None, dtype: Any = None, **settings: Any) -> Any:
        _arrays_only(a)
        settings.pop("overwrite_input", None)
        kind = None
        if name in ("argmax", "argmin"):
            kind = dtype
        elif dtype is not None:
            settings["dtype"] = np.dtype(dtype)
        return operate(
            name, function, (a,), settings, out=out, n=N_LAUNCHES.get(name, 1), dtype=kind
        )

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


def plain(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def body(out: Any = None, **settings: Any) -> Any:
        settings |= settings.pop("kwargs", {})
        settings = {key: value for key, value in settings.items() if value is not None}
        if name == "clip":
            settings = {"a_min": None, "a_max": None} | settings
        first = settings.pop(next(iter(settings)))
        return operate(name, function, (first,), settings, out=out, n=N_LAUNCHES.get(name, 1))

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
        if len(arrays) > 8 and len({a.dtype for a in arrays}) == 1:
            # One launch, with the addresses of the arrays copied from the host.
            upload(np.zeros(len(arrays), np.int64))
            return operate(name, function, (arrays,), settings, out=out)
        return operate(name, function, (arrays,), settings, out=out, n=len(arrays))

    return body


def waiting(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def body(**settings: Any) -> Any:
        settings.pop("out", None)
        arrays = [value for value in settings.values() if isinstance(value, ndarray)]
        _arrays_only(next(iter(settings.values())))
        read_back(name, *arrays, n=N_LAUNCHES.get(name, 2))
        values = {
            key: value._a if isinstance(value, ndarray) else value
            for key, value in settings.items()
            if value is not None
        }
        first = next(iter(values))
        found = function(values.pop(first), **values)
        if isinstance(found, tuple):
            return tuple(map(_computed, found))
        return _computed(found)

    return body


def _computed(values: np.ndarray) -> ndarray:
    """Return an array that a kernel has filled with values."""
    new = ndarray(values.shape, values.dtype)
    target = new._a

    def run() -> None:
        target[...] = values

    launch_all("gather", run, [], [new])
    return new


FUNCTIONS = (
    define(REDUCTIONS, reduction)
    | define(VIEWS, view)
    | define(PLAIN, plain)
    | define(JOINS, join)
    | define(WAITING.replace("\\\n", ""), waiting)
)
