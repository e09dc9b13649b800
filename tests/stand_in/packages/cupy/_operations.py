"""One operation: allocate its output, then launch the NumPy function that fills it.

An output's shape and dtype come from the function itself, called once on zeros for each kind of
operands: a captured step has no values yet.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
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


def _of_results(results: Any) -> tuple[bool, tuple[_Spec, ...]]:
    many = isinstance(results, tuple | list)
    results = [np.asarray(result) for result in (results if many else [results])]
    return many, tuple(_Spec(result.shape, result.dtype) for result in results)


@functools.lru_cache(10_000)
def _traced(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    with np.errstate(all="ignore"):
        return _of_results(function(*mapped(_zeros, args), **mapped_values(_zeros, dict(kwargs))))


def mapped_values(function: Callable[[Any], Any], values: dict[str, Any]) -> dict[str, Any]:
    return {name: mapped(function, value) for name, value in values.items()}


def result_specs(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Return whether a function returns several arrays, and the shape and dtype of each."""
    described = mapped(_described, args), tuple(mapped_values(_described, kwargs).items())
    try:
        return _traced(function, *described)
    except TypeError:  # An argument that no dictionary can look up, or a real one.
        return _traced.__wrapped__(function, *described)


def operate(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    out: ndarray | None = None,
    n: int = 1,
    dtype: Any = None,
    order: str = "C",
) -> Any:
    """Launch a NumPy function on arrays and return what it fills, in C order.

    ``n`` is the number of launches that CuPy needs for it; all but the last are empty here.
    """
    kwargs = kwargs or {}
    many, specs = result_specs(function, args, kwargs)
    outs = (
        [out]
        if out is not None
        else [ndarray(spec.shape, dtype or spec.dtype, order=order) for spec in specs]
    )
    if out is not None and out.shape != specs[0].shape:
        raise ValueError(f"Output shape mismatch: {out.shape}, not {specs[0].shape}")
    run_into(name, function, args, kwargs, outs, n)
    return tuple(outs) if many else outs[0]


def run_into(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outs: list[ndarray],
    n: int = 1,
) -> None:
    """Launch a NumPy function whose results go into given arrays, if they have elements."""
    arrays = [*arrays_in(args), *arrays_in(list(kwargs.values()))]
    views = mapped(_numpy_view, args)
    view_kwargs = mapped_values(_numpy_view, kwargs)
    targets = [out._a for out in outs]

    def run() -> None:
        with np.errstate(all="ignore"):
            results = function(*views, **view_kwargs)
            for target, result in zip(
                targets, results if isinstance(results, tuple | list) else [results], strict=True
            ):
                np.copyto(target, result, casting="unsafe")

    launch_all(name, run, arrays, outs, n)


def launch_all(
    name: str,
    run: Callable[[], None],
    arrays: Sequence[ndarray],
    outs: Sequence[ndarray],
    n: int = 1,
) -> None:
    """Launch something n times, of which the last does all, on the current stream."""
    if not any(out._a.size for out in outs):
        return
    reads, writes = [a._memory for a in arrays], [out._memory for out in outs]
    for _ in range(n - 1):
        launch(name, _nothing, reads=reads, writes=writes)
    launch(name, run, reads=reads, writes=writes)


def _nothing() -> None:
    pass


def _numpy_view(value: Any) -> Any:
    return value._a if isinstance(value, ndarray) else value


def check_operands(*values: Any) -> None:
    """Raise TypeError for what is neither an array of a device nor a scalar."""
    for value in values:
        if not isinstance(value, (*SCALARS, ndarray)):
            raise TypeError(f"Unsupported type {type(value)}")


def read_back(name: str, *arrays: ndarray, n: int = 1) -> list[np.ndarray]:
    """Return values that decide a shape: CuPy launches something, and waits for its result."""
    for _ in range(n):
        launch(name, _nothing, reads=[a._memory for a in arrays])
    _launch.wait(name, current_queue())
    return [a._a for a in arrays]


def upload(host: np.ndarray, order: str = "C") -> ndarray:
    """Return a copy of an array of the host on the current device."""
    new = ndarray(host.shape, host.dtype, order=order)
    if new.size:
        new.set(host)
    return new
