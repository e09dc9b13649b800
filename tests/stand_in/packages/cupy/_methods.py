"""Methods and operators of `cupy.ndarray`, from the functions of the other modules."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cupy import _creation, _indexing, _products
from cupy._array import SCALARS, ndarray
from cupy._functions import FUNCTIONS
from cupy._signatures import one, read
from cupy._ufuncs import UFUNCS

METHODS = """
all(self, axis=None, out=None, keepdims=False)
any(self, axis=None, out=None, keepdims=False)
argmax(self, axis=None, out=None, dtype=None, keepdims=False)
argmin(self, axis=None, out=None, dtype=None, keepdims=False)
argsort(self, axis=-1, kind=None)
clip(self, min=None, max=None, out=None)
conj(self)
conjugate(self)
cumprod(self, axis=None, dtype=None, out=None)
cumsum(self, axis=None, dtype=None, out=None)
diagonal(self, offset=0, axis1=0, axis2=1)
dot(self, b, out=None)
max(self, axis=None, out=None, keepdims=False)
mean(self, axis=None, dtype=None, out=None, keepdims=False)
min(self, axis=None, out=None, keepdims=False)
nonzero(self)
prod(self, axis=None, dtype=None, out=None, keepdims=None)
ravel(self, order='C')
repeat(self, repeats, axis=None)
round(self, decimals=0, out=None)
searchsorted(self, v, side='left', sorter=None)
squeeze(self, axis=None)
std(self, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
sum(self, axis=None, dtype=None, out=None, keepdims=False)
swapaxes(self, axis1, axis2)
trace(self, offset=0, axis1=0, axis2=1, dtype=None, out=None)
var(self, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
"""
OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pow": "power",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}
COMPARISONS = {
    "lt": "less",
    "le": "less_equal",
    "eq": "equal",
    "ne": "not_equal",
    "gt": "greater",
    "ge": "greater_equal",
}


def round_(a: ndarray, decimals: int = 0, out: ndarray | None = None) -> ndarray:
    from cupy._operations import operate

    return operate("round", np.round, (a,), {"decimals": decimals}, out=out)


def _named(name: str) -> Callable[..., Any]:
    function = {"round": round_, "dot": _products.dot}.get(name) or FUNCTIONS.get(name)
    function = function or UFUNCS[name]

    def body(self: ndarray, **settings: Any) -> Any:
        if settings.get("keepdims", False) is None:
            settings["keepdims"] = False
        if name == "clip":
            settings = {"a_min": settings["min"], "a_max": settings["max"], "out": settings["out"]}
        return function(self, **settings)

    return body


def _binary(name: str, swapped: bool = False) -> Callable[..., Any]:
    function = UFUNCS[name]

    def method(self: ndarray, other: Any) -> Any:
        if not isinstance(other, (*SCALARS, ndarray, np.ndarray)):
            return NotImplemented
        return function(other, self) if swapped else function(self, other)

    return method


def _in_place(name: str) -> Callable[..., Any]:
    function = UFUNCS[name]
    return lambda self, other: function(self, other, self)


def _comparison(name: str) -> Callable[..., Any]:
    function = UFUNCS[name]

    def method(self: ndarray, other: Any) -> Any:
        if not isinstance(other, (*SCALARS, ndarray, np.ndarray)):
            if name in ("equal", "not_equal"):
                return _creation.CREATION["full"](self.shape, name == "not_equal", dtype=bool)
            return NotImplemented
        if isinstance(other, np.ndarray) and other.ndim == 0:
            other = other.item()
        return function(self, other)

    return method


def _power(self: ndarray, other: Any) -> Any:
    if type(other) in (int, float) and other == 2 and self.dtype.kind in "fic":
        return UFUNCS["square"](self)
    if type(other) is float and self.dtype.kind in "fc" and other in (0.5, -1.0):
        return UFUNCS["sqrt" if other == 0.5 else "reciprocal"](self)
    return _binary("power")(self, other)


def _matmul(self: ndarray, other: Any) -> Any:
    if not isinstance(other, (*SCALARS, ndarray, np.ndarray)):
        return NotImplemented
    return _products.matmul(self, other)


class _More:
    """Methods whose arguments are not those of a function."""

    def astype(
        self: Any,
        dtype: Any,
        order: str = "K",
        casting: None = None,
        subok: None = None,
        copy: bool = True,
    ) -> ndarray:
        if casting is not None or subok is not None:
            raise TypeError("casting and subok are not supported yet")
        return _creation.astype(self, dtype, order, copy or None)

    def copy(self: Any, order: str = "C") -> ndarray:
        from cupy import _launch

        if self._memory.device_id != _launch.state.device:
            return _creation.from_other_device(self, order)
        return _creation.astype(self, self.dtype, order)

    def flatten(self: Any, order: str = "C") -> ndarray:
        return FUNCTIONS["ravel"](self.copy(order="K"), order)

    def fill(self: Any, value: Any) -> None:
        _indexing.fill(self, value)

    def take(self: Any, indices: Any, axis: int | None = None, out: Any = None) -> ndarray:
        return _indexing.take(self, indices, axis, out)

    def reshape(self: Any, *shape: Any, order: str = "C", copy: bool | None = None) -> ndarray:
        target = shape[0] if len(shape) == 1 else shape
        return FUNCTIONS["reshape"](self, target, order, copy=copy)

    def transpose(self: Any, *axes: Any) -> ndarray:
        given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None
        return FUNCTIONS["transpose"](self, given)

    def view(self: Any, dtype: Any = None, type: Any = None) -> ndarray:
        return self._view(self._a.view() if dtype is None else self._a.view(dtype))

    def sort(self: Any, axis: int = -1, kind: Any = None) -> None:
        self[...] = FUNCTIONS["sort"](self, axis, kind)

    @property
    def T(self: Any) -> ndarray:
        return self if self.ndim < 2 else FUNCTIONS["transpose"](self)

    @property
    def mT(self: Any) -> ndarray:
        if self.ndim < 2:
            raise ValueError("matrix transpose with ndim < 2 is undefined")
        return self.swapaxes(-1, -2)

    @property
    def real(self: Any) -> ndarray:
        return FUNCTIONS["real"](self)

    @property
    def imag(self: Any) -> ndarray:
        return FUNCTIONS["imag"](self)

    def __iter__(self: Any) -> Iterator[ndarray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __copy__(self: Any) -> ndarray:
        return self.copy()

    def __deepcopy__(self: Any, memo: Any) -> ndarray:
        with self.device:
            return self.copy()

    def __bool__(self: Any) -> bool:
        if self.size == 0:
            raise ValueError("The truth value of an empty array is ambiguous.")
        if self.size > 1:
            raise ValueError(
                "The truth value of an array with more than one element is ambiguous. "
                "Use a.any() or a.all()"
            )
        return bool(self.get())


def attach() -> None:
    """Add the methods and operators to the class."""
    for name, signature in read(METHODS):
        setattr(ndarray, name, one(name, signature, _named(name), "cupy"))
    for name, value in vars(_More).items():
        if name not in ("__module__", "__dict__", "__weakref__", "__doc__"):
            setattr(ndarray, name, value)
    for name, function in OPERATORS.items():
        setattr(ndarray, f"__{name}__", _binary(function))
        setattr(ndarray, f"__r{name}__", _binary(function, swapped=True))
        setattr(ndarray, f"__i{name}__", _in_place(function))
    for name, function in COMPARISONS.items():
        setattr(ndarray, f"__{name}__", _comparison(function))
    for name, function in {"neg": "negative", "pos": "positive", "invert": "invert"}.items():
        setattr(ndarray, f"__{name}__", lambda self, function=function: UFUNCS[function](self))
    ndarray.__abs__ = lambda self: UFUNCS["absolute"](self)
    ndarray.__divmod__ = _binary("divmod")
    ndarray.__pow__ = _power
    ndarray.__matmul__ = _matmul
    ndarray.__getitem__ = _indexing.get_item
    ndarray.__setitem__ = _indexing.set_item
