"""Methods and operators of `cupy.ndarray`, from the functions of the other modules."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cupy import _creation, _indexing, _products
from cupy._array import SCALARS, ndarray
from cupy._functions import FUNCTIONS
from cupy._signatures import define
from cupy._ufuncs import UFUNCS

METHODS = """
all(self, axis=None, out=None, keepdims=False)
any(self, axis=None, out=None, keepdims=False)
max(self, axis=None, out=None, keepdims=False)
mean(self, axis=None, dtype=None, out=None, keepdims=False)
min(self, axis=None, out=None, keepdims=False)
sum(self, axis=None, dtype=None, out=None, keepdims=False)
swapaxes(self, axis1, axis2)
var(self, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
"""
BINARY = """
add=add sub=subtract mul=multiply truediv=true_divide mod=remainder pow=power
rshift=right_shift and=bitwise_and or=bitwise_or xor=bitwise_xor
"""
COMPARISONS = "lt=less le=less_equal eq=equal ne=not_equal gt=greater ge=greater_equal"


def _pairs(table: str) -> list[list[str]]:
    return [entry.split("=") for entry in table.split()]


def _named(name: str) -> Callable[..., Any]:
    return lambda self, **settings: FUNCTIONS[name](self, **settings)


def _binary(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    def method(self: ndarray, other: Any) -> Any:
        if not isinstance(other, (*SCALARS, ndarray, np.ndarray)):
            return NotImplemented
        return function(other, self) if swapped else function(self, other)

    return method


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: function(self, other, self)


def _power(self: ndarray, other: Any) -> Any:
    if type(other) in (int, float) and other == 2 and self.dtype.kind in "fic":
        return UFUNCS["square"](self)
    if type(other) is float and self.dtype.kind in "fc" and other in (0.5, -1.0):
        return UFUNCS["sqrt" if other == 0.5 else "reciprocal"](self)
    return _binary(UFUNCS["power"])(self, other)


class _More:
    """Methods whose arguments are not those of a function."""

    def astype(self: Any, dtype, order="K", casting=None, subok=None, copy=True) -> ndarray:
        if casting is not None or subok is not None:
            raise TypeError("casting and subok are not supported yet")
        return _creation.astype(self, dtype, order, copy or None)

    def copy(self: Any, order: str = "C") -> ndarray:
        return _creation.array(self, order=order)

    def fill(self: Any, value: Any) -> None:
        _indexing.fill(self, value)

    def take(self: Any, indices: Any, axis: int | None = None, out: Any = None) -> ndarray:
        return _indexing.take(self, indices, axis, out)

    def reshape(self: Any, *shape: Any, order: str = "C", copy: bool | None = None) -> ndarray:
        target = shape[0] if len(shape) == 1 else shape
        return FUNCTIONS["reshape"](self, target, order, copy=copy)

    @property
    def T(self: Any) -> ndarray:
        return self if self.ndim < 2 else FUNCTIONS["transpose"](self)

    def __iter__(self: Any) -> Iterator[ndarray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    def __deepcopy__(self: Any, memo: Any) -> ndarray:
        with self.device:
            return self.copy()

    def __bool__(self: Any) -> bool:
        if self.size != 1:
            raise ValueError(f"The truth value of an array of {self.size} elements is ambiguous.")
        return bool(self.get())


def attach() -> None:
    methods = define(METHODS, _named)
    no_method = "__module__", "__dict__", "__weakref__", "__doc__"
    methods |= {name: value for name, value in vars(_More).items() if name not in no_method}
    for name, function in _pairs(BINARY):
        methods[f"__{name}__"] = _binary(UFUNCS[function])
        methods[f"__r{name}__"] = _binary(UFUNCS[function], swapped=True)
        methods[f"__i{name}__"] = _in_place(UFUNCS[function])
    for name, function in _pairs(COMPARISONS):
        methods[f"__{name}__"] = _binary(UFUNCS[function])
    for name, function in _pairs("neg=negative pos=positive invert=invert abs=absolute"):
        methods[f"__{name}__"] = lambda self, function=function: UFUNCS[function](self)
    methods["__pow__"] = _power
    methods["__matmul__"] = _binary(_products.matmul)
    methods["__getitem__"] = _indexing.get_item
    methods["__setitem__"] = _indexing.set_item
    for name, method in methods.items():
        setattr(ndarray, name, method)
