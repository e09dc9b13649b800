"""One operation: allocate its output, then launch the NumPy function that fills it.

An output's shape and dtype come from the function itself, called once on zeros for each kind of
operands: a captured step has no values yet.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from cupy import _launch
from cupy._array import SCALARS, ndarray
from cupy._launch import current_queue, launch


class _Spec(NamedTuple):
    """An array of which only this is known."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def zeros(self) -> np.ndarray:
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


class _Typed(NamedTuple):
    """A value that does not equal one of another type."""

    kind: type
    value: Any


def mapped(function: Callable[[Any], Any], values: Any) -> Any:
    """Return nested tuples of what a function returns for the leaves of lists and tuples."""
    if isinstance(values, list | tuple) and not isinstance(values, _Spec | _Typed):
        return tuple(mapped(function, value) for value in values)
    return function(values)


def arrays_in(values: Any) -> Iterator[ndarray]:
    """Yield the arrays in nested lists and tuples; TypeError for an array of the host."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from arrays_in(value)
    elif isinstance(values, ndarray):
        yield values
    elif isinstance(values, np.ndarray):
        raise TypeError(f"Unsupported type {type(values)}")


def _described(value: Any) -> Any:
    if isinstance(value, ndarray):
        return _Spec(value.shape, value.dtype)
    return _Typed(type(value), value)


def _zeros(value: Any) -> Any:
    return value.zeros() if isinstance(value, _Spec) else value.value


@functools.lru_cache(10_000)
def _traced(function: Callable[..., Any], args: Any, kwargs: Any) -> _Spec:
    settings = {name: mapped(_zeros, value) for name, value in kwargs}
    with np.errstate(all="ignore"):
        result = np.asarray(function(*mapped(_zeros, args), **settings))
    return _Spec(result.shape, result.dtype)


def operate(name, function, args, kwargs=None, *, out=None, n=1, dtype=None) -> ndarray:
    """Launch a NumPy function on arrays and return what it fills, in C order.

    ``n`` is the number of launches that CuPy needs for it; all but the last are empty here.
    """
    kwargs = kwargs or {}
    settings = tuple((name, mapped(_described, value)) for name, value in kwargs.items())
    spec = _traced(function, mapped(_described, args), settings)
    if out is None:
        out = ndarray(spec.shape, dtype or spec.dtype)
    elif out.shape != spec.shape:
        raise ValueError(f"Output shape mismatch: {out.shape}, not {spec.shape}")
    run_into(name, function, args, kwargs, out, n)
    return out


def run_into(name, function, args, kwargs, out, n=1) -> None:
    views, target = mapped(lambda x: x._a if isinstance(x, ndarray) else x, args), out._a

    def run() -> None:
        with np.errstate(all="ignore"):
            np.copyto(target, function(*views, **kwargs), casting="unsafe")

    launch_all(name, run, [*arrays_in(args)], out, n)


def launch_all(name, run, arrays, out, n=1) -> None:
    """Launch something n times, of which the last does all, if there are elements to fill."""
    if not out.size:
        return
    reads, writes = [a._memory for a in arrays], [out._memory]
    for _ in range(n - 1):
        launch(name, lambda: None, reads=reads, writes=writes)
    launch(name, run, reads=reads, writes=writes)


def check_operands(*values: Any) -> None:
    for value in values:
        if not isinstance(value, (*SCALARS, ndarray)):
            raise TypeError(f"Unsupported type {type(value)}")


def read_back(name: str, *arrays: ndarray, n: int = 1) -> list[np.ndarray]:
    """Return values that decide a shape: CuPy launches something, and waits for its result."""
    for _ in range(n):
        launch(name, lambda: None, reads=[a._memory for a in arrays])
    _launch.wait(name, current_queue())
    return [a._a for a in arrays]


def upload(host: np.ndarray, order: str = "C") -> ndarray:
    new = ndarray(host.shape, host.dtype, order=order)
    if new.size:
        new.set(host)
    return new
