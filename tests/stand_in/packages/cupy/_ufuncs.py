"""Universal functions: one launch each, in C order, of arrays of the device and scalars alone."""

import functools
from typing import Any

import numpy as np

from cupy._array import ndarray
from cupy._launch import launch
from cupy._operations import check_operands, launch_all

# CuPy's names, where they differ from NumPy's function after "=".
NAMES = """
abs=absolute absolute acos=arccos acosh=arccosh add arccos arccosh arcsin arcsinh arctan arctan2
arctanh asin=arcsin asinh=arcsinh atan=arctan atan2=arctan2 atanh=arctanh bitwise_and
bitwise_invert=invert bitwise_left_shift=left_shift bitwise_or bitwise_right_shift=right_shift
bitwise_xor ceil conj=conjugate conjugate copysign cos cosh divide=true_divide divmod equal exp
expm1 floor floor_divide fmax fmin greater greater_equal hypot invert isfinite isinf isnan
left_shift less less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or
logical_xor maximum minimum multiply negative nextafter not_equal positive pow=power power
reciprocal remainder right_shift rint sign signbit sin sinh sqrt square subtract tan tanh
true_divide trunc
"""


@functools.lru_cache(10_000)
def _result(function: np.ufunc, operands: tuple[Any, ...], dtype: Any) -> tuple[Any, ...]:
    """Return the shape and the dtypes of what a function returns for shapes and dtypes."""
    shape = np.broadcast_shapes(*(shape for shape, _ in operands))
    signature = (None,) * function.nin + (dtype,) * function.nout
    settings = {} if dtype is None else {"signature": signature}
    dtypes = tuple(kind for _, kind in operands) + (None,) * function.nout
    return shape, function.resolve_dtypes(dtypes, casting="unsafe", **settings)[function.nin :]


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
    """A function of each element."""

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
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {self.nin} or "
                f"{self.nargs} (with outputs), but given {len(args)}."
            )
        outs = args[self.nin :] or (out if isinstance(out, tuple) else (out,) * (out is not None))
        args = args[: self.nin]
        described = tuple(map(_described, args))
        dtype = None if dtype is None else np.dtype(dtype)
        shape, dtypes = _result(self._function, described, dtype)
        if outs:
            self._check_outputs(shape, dtypes, outs, casting)
            for a in args:
                if any(_overlap(a, out) for out in outs):
                    # CuPy reads a copy of an operand that it would overwrite.
                    launch("copy", lambda: None, reads=[a._memory])
        else:
            outs = tuple([ndarray(shape, found) for found in dtypes])
        self._launch(args, outs, dtype)
        return outs if self.nout > 1 else outs[0]

    def _check_outputs(self, shape: Any, dtypes: Any, outs: Any, casting: Any) -> None:
        for found, out in zip(dtypes, outs, strict=True):
            if not isinstance(out, ndarray):
                raise TypeError(f"Unsupported type {type(out)}")
            if out.shape != np.broadcast_shapes(shape, out.shape):
                raise ValueError(
                    f"non-broadcastable output operand with shape {out.shape} doesn't match "
                    f"the broadcast shape {shape}"
                )
            if not np.can_cast(found, out.dtype, casting):
                raise TypeError(
                    f"output (typecode {found.char!r}) could not be coerced to provided output "
                    f"parameter (typecode {out.dtype.char!r}) according to the casting rule "
                    f'"{casting}"'
                )

    def _launch(self, args: tuple[Any, ...], outs: tuple[Any, ...], dtype: Any) -> None:
        arrays = [a for a in args if isinstance(a, ndarray)]
        views = [a._a if isinstance(a, ndarray) else a for a in args]
        targets = tuple([out._a for out in outs])
        function = self._function

        def run() -> None:
            with np.errstate(all="ignore"):
                function(*views, out=targets, dtype=dtype, casting="unsafe")

        launch_all(self.name, run, arrays, outs)

    def outer(self, A: Any, B: Any, **kwargs: Any) -> Any:
        check_operands(A, B)
        ndim = getattr(B, "ndim", 0)
        return self(A[(..., *(None,) * ndim)] if isinstance(A, ndarray) else A, B, **kwargs)

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        from cupy._indexing import scatter

        if self.__name__ not in ("add", "subtract", "maximum", "minimum"):
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        scatter(a, indices, b, self._function)


def _overlap(a: Any, out: ndarray) -> bool:
    """Whether an output is written over an operand whose elements lie elsewhere."""
    if a is out or not isinstance(a, ndarray):
        return False
    if a._memory is not out._memory or not np.may_share_memory(a._a, out._a):
        return False
    here, there = a._a.__array_interface__, out._a.__array_interface__
    return (here["data"], a.shape, a.strides) != (there["data"], out.shape, out.strides)


def _table() -> dict[str, ufunc]:
    """Return the functions by name; two names of one function are one object."""
    pairs = [entry.partition("=") for entry in NAMES.split()]
    names = {name: target or name for name, _, target in pairs}
    made = {target: ufunc(getattr(np, target), target) for target in names.values()}
    return {name: made[target] for name, target in names.items()}


UFUNCS = _table()
