"""Universal functions: one launch each, in C order, of arrays of the device and scalars alone."""

import functools
from typing import Any

import numpy as np

from cupy._array import ndarray
from cupy._operations import launch_all

# CuPy's names, where they differ from NumPy's function after "="; array-api-compat asks for some.
NAMES = """
abs=absolute absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and
bitwise_or bitwise_xor conj=conjugate conjugate cos equal exp expm1 greater greater_equal invert
isfinite isnan left_shift less less_equal log log1p logical_and logical_not logical_or maximum
minimum multiply negative not_equal positive power reciprocal remainder right_shift sign sin sqrt
square subtract tanh true_divide
"""


@functools.lru_cache(10_000)
def _result(function: np.ufunc, operands: tuple[Any, ...], dtype: Any) -> tuple[Any, ...]:
    """Return the shape and the dtype of what a function returns for shapes and dtypes."""
    shape = np.broadcast_shapes(*(shape for shape, _ in operands))
    settings = {} if dtype is None else {"signature": (*[None] * function.nin, dtype)}
    dtypes = *(kind for _, kind in operands), None
    return shape, function.resolve_dtypes(dtypes, casting="unsafe", **settings)[-1]


def _described(value: Any) -> tuple[tuple[int, ...], Any]:
    """Return a shape and what decides the dtype: Python's numbers adapt to the arrays."""
    if isinstance(value, ndarray):
        return value._a.shape, value._a.dtype
    if isinstance(value, np.generic):
        return (), value.dtype
    if type(value) in (int, float, complex):
        return (), type(value)
    if type(value) is bool:
        return (), np.dtype(bool)
    raise TypeError(f"Unsupported type {type(value)}")


class ufunc:  # noqa: N801 - CuPy's name
    def __init__(self, function: np.ufunc, name: str) -> None:
        self._function = function
        self.name = f"cupy_{name}"
        self.__name__ = name
        self.nin, self.nout, self.nargs = function.nin, function.nout, function.nargs

    def __repr__(self) -> str:
        return f"<ufunc {self.name!r}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        dtype = kwargs.pop("dtype", None)
        casting = kwargs.pop("casting", "same_kind")
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(args)}")
        *operands, out = args if len(args) == self.nargs else (*args, out)
        described = tuple(map(_described, operands))
        dtype = None if dtype is None else np.dtype(dtype)
        shape, found = _result(self._function, described, dtype)
        if out is None:
            out = ndarray(shape, found)
        else:
            self._check_output(shape, found, out, casting)
        arrays = [a for a in operands if isinstance(a, ndarray)]
        views = [a._a if isinstance(a, ndarray) else a for a in operands]
        function, target = self._function, out._a

        def run() -> None:
            with np.errstate(all="ignore"):
                function(*views, out=target, dtype=dtype, casting="unsafe")

        launch_all(self.name, run, arrays, out)
        return out

    def _check_output(self, shape: Any, found: np.dtype, out: Any, casting: Any) -> None:
        if not isinstance(out, ndarray):
            raise TypeError(f"Unsupported type {type(out)}")
        if out.shape != np.broadcast_shapes(shape, out.shape):
            raise ValueError(f"an output of shape {out.shape} for a result of shape {shape}")
        if not np.can_cast(found, out.dtype, casting):
            raise TypeError(
                f"an output of {out.dtype} for a result of {found} by {casting!r} casting"
            )


def _table() -> dict[str, ufunc]:
    """Return the functions by name; two names of one function are one object."""
    pairs = [entry.partition("=") for entry in NAMES.split()]
    names = {name: target or name for name, _, target in pairs}
    made = {target: ufunc(getattr(np, target), target) for target in names.values()}
    return {name: made[target] for name, target in names.items()}


UFUNCS = _table()
