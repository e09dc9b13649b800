"""The Array API functions of traced arrays, which are either primitives or made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial, partialmethod
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlp_xp.compiler.array import (
    FLOATS,
    INTS,
    TracedArray,
    apply,
    as_node,
    broadcast,
    common_dtype,
    dtype_name,
    is_float,
    matmul,
    multiply,
    operation,
    permute,
    power,
    reshape,
    view,
)
from mlp_xp.compiler.graph import FormulaError, Node
from mlp_xp.compiler.primitives import ELEMENTWISE

# NumPy lacks this dtype.
_BFLOAT16 = SimpleNamespace(eps=2.0**-7, max=float(2**128 - 2**120), smallest_normal=2.0**-126)


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    given = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if any(not -ndim <= i < ndim for i in given):
        raise FormulaError(f"axis={axis} is out of range for an array with {ndim} axes.")
    return tuple(sorted(i % ndim for i in given))


def _axis(axis: Any, ndim: int) -> int:
    """Return one axis, which only a vector may leave out."""
    axes = _axes(axis, ndim)
    if len(axes) != 1:
        raise FormulaError(f"axis={axis} must be one axis of an array with {ndim}, e.g. axis=-1.")
    return axes[0]


def _part(x: TracedArray, axis: int, part: slice) -> TracedArray:
    """Return a slice of an array along an axis."""
    return x[(*[slice(None)] * _axis(axis, x.ndim), part)]


class Namespace:
    """The Array API namespace of traced arrays.

    New floating-point arrays have the dtype ``default`` unless the formula gives another.
    """

    pi, e, inf, nan, newaxis = math.pi, math.e, math.inf, math.nan, None

    def __init__(self, default: str) -> None:
        self.default = default

    def __getattr__(self, name: str) -> Any:
        if name in FLOATS or name in INTS or name == "bool":
            return name
        if name in ELEMENTWISE:
            return lambda *operands: operation(name, *operands)
        if name.startswith("__"):
            raise AttributeError(name)
        raise FormulaError(
            f"a formula cannot use xp.{name}, which is not a function of the Array API that can be "
            "traced; write it with other functions, or return a pullback too."
        )

    @property
    def linalg(self) -> Namespace:
        return self

    # --- elementwise functions made of others ----------------------------------------------------

    multiply, pow, matmul = map(staticmethod, (multiply, power, matmul))

    def positive(self, x: TracedArray) -> TracedArray:
        return TracedArray(x.node)

    def square(self, x: TracedArray) -> TracedArray:
        return multiply(x, x)

    def where(self, condition: Any, a: Any, b: Any) -> TracedArray:
        if not any(hasattr(x, "dtype") for x in (a, b)):
            a, b = (self._constant(np.asarray(x)) for x in (a, b))
        return operation("where", condition, a, b)

    def clip(self, x: TracedArray, min: Any = None, max: Any = None) -> TracedArray:
        x = x if min is None else operation("maximum", x, min)
        return x if max is None else operation("minimum", x, max)

    def astype(self, x: TracedArray, dtype: Any, *, copy: bool = True) -> TracedArray:
        name = dtype_name(dtype)
        if name == x.dtype:
            return TracedArray(x.node, origin="" if copy else x.origin, is_view=not copy)
        return apply("astype", x, name, shape=x.shape, dtype=name)

    # --- dtypes ----------------------------------------------------------------------------------

    def isdtype(self, dtype: Any, kind: Any) -> bool:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        name = dtype_name(dtype)
        known = {"bool": ("bool",), "real floating": FLOATS, "integral": INTS}
        known["signed integer"], known["unsigned integer"] = INTS[:4], INTS[4:]
        known["numeric"] = (*FLOATS, *INTS)
        return any(name in known.get(k, (k,)) for k in kinds)

    def result_type(self, *operands: Any) -> str:
        nodes = [
            Node("constant", (), (), (), x) if isinstance(x, str) else as_node(x) for x in operands
        ]
        return common_dtype("result_type", nodes)

    def finfo(self, dtype: Any) -> Any:
        name = dtype_name(getattr(dtype, "dtype", dtype))
        return _BFLOAT16 if name == "bfloat16" else np.finfo(name)

    def iinfo(self, dtype: Any) -> Any:
        return np.iinfo(dtype_name(getattr(dtype, "dtype", dtype)))

    # --- creation --------------------------------------------------------------------------------

    def asarray(self, x: Any, *, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:
        if isinstance(x, TracedArray):
            if dtype is None and not copy:
                return x
            return self.astype(x, x.dtype if dtype is None else dtype, copy=bool(copy))
        if not hasattr(x, "dtype"):
            if isinstance(x, list | tuple) and any(isinstance(i, TracedArray) for i in x):
                return self.stack([self.asarray(item, dtype=dtype) for item in x])
            return self._constant(np.asarray(x), dtype)
        constant = TracedArray(as_node(x))
        return constant if dtype is None else self.astype(constant, dtype)

    def _constant(self, x: np.ndarray, dtype: Any = None) -> TracedArray:
        name = self.default if dtype is None and x.dtype.kind == "f" else dtype
        # NumPy lacks bfloat16, so such constants are converted by the formula.
        is_known = name is not None and dtype_name(name) != "bfloat16"
        constant = TracedArray(as_node(x.astype(dtype_name(name)) if is_known else x))
        return constant if name is None else self.astype(constant, name)

    def full(self, shape: Any, value: Any, *, dtype: Any = None, device: Any = None) -> Any:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if isinstance(value, TracedArray):
            return self.broadcast_to(self.asarray(value, dtype=dtype), shape)
        number = self._constant(np.asarray(value), self.default if dtype is None else dtype)
        return self.broadcast_to(number, shape)

    def _filled(
        self, value: float, shape: Any, *, dtype: Any = None, device: Any = None
    ) -> TracedArray:
        return self.full(shape, value, dtype=dtype)

    zeros = empty = partialmethod(_filled, 0)
    ones = partialmethod(_filled, 1)

    def full_like(
        self, x: TracedArray, value: Any, *, dtype: Any = None, device: Any = None
    ) -> TracedArray:
        return self.full(x.shape, value, dtype=x.dtype if dtype is None else dtype)

    zeros_like = empty_like = partialmethod(full_like, value=0)
    ones_like = partialmethod(full_like, value=1)

    def _computed(
        self, name: str, *args: Any, dtype: Any = None, device: Any = None, **options: Any
    ) -> TracedArray:
        return self._constant(getattr(np, name)(*args, **options), dtype)

    arange, linspace, eye = map(partial(partialmethod, _computed), ("arange", "linspace", "eye"))

    # --- shapes ----------------------------------------------------------------------------------

    def reshape(self, x: TracedArray, shape: Any, *, copy: Any = None) -> TracedArray:
        return reshape(x, shape)

    def permute_dims(self, x: TracedArray, axes: Any) -> TracedArray:
        return permute(x, axes)

    def matrix_transpose(self, x: TracedArray) -> TracedArray:
        return x.mT

    def expand_dims(self, x: TracedArray, *, axis: int = 0) -> TracedArray:
        at = _axis(axis, x.ndim + 1)
        return self.reshape(x, (*x.shape[:at], 1, *x.shape[at:]))

    def squeeze(self, x: TracedArray, axis: Any = None) -> TracedArray:
        dropped = _axes(axis, x.ndim)
        return self.reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in dropped))

    def moveaxis(self, x: TracedArray, source: int, destination: int) -> TracedArray:
        axes = list(range(x.ndim))
        axes.insert(destination % x.ndim, axes.pop(source % x.ndim))
        return self.permute_dims(x, axes)

    def broadcast_to(self, x: TracedArray, shape: Any) -> TracedArray:
        shape = tuple(shape)
        if shape == x.shape:
            return TracedArray(x.node, is_view=True)
        if broadcast("broadcast_to", [x.shape, shape]) != shape:
            raise FormulaError(f"xp.broadcast_to cannot change the shape {x.shape} to {shape}.")
        return view("broadcast_to", x, shape, shape=shape)

    def broadcast_arrays(self, *arrays: TracedArray) -> list[TracedArray]:
        shape = broadcast("broadcast_arrays", [x.shape for x in arrays])
        return [self.broadcast_to(x, shape) for x in arrays]

    def concat(self, arrays: Sequence[TracedArray], *, axis: int = 0) -> TracedArray:
        nodes = tuple(map(as_node, arrays))
        at = _axis(axis, len(nodes[0].shape))
        rest = {(*n.shape[:at], *n.shape[at + 1 :]) for n in nodes}
        if len(rest) > 1:
            raise FormulaError(f"xp.concat cannot join {[n.shape for n in nodes]} on axis {at}.")
        first = nodes[0].shape
        shape = (*first[:at], sum(n.shape[at] for n in nodes), *first[at + 1 :])
        return TracedArray(Node("concat", nodes, (at,), shape, common_dtype("concat", nodes)))

    def stack(self, arrays: Sequence[TracedArray], *, axis: int = 0) -> TracedArray:
        return self.concat([self.expand_dims(x, axis=axis) for x in arrays], axis=axis)

    def unstack(self, x: TracedArray, *, axis: int = 0) -> tuple[TracedArray, ...]:
        return tuple(self.moveaxis(x, axis, 0))

    def roll(self, x: TracedArray, shift: Any, *, axis: Any = None) -> TracedArray:
        if axis is None:
            return self.reshape(self.roll(self.reshape(x, (-1,)), shift, axis=0), x.shape)
        for n, i in np.broadcast(shift, axis):
            at = -int(n) % max(x.shape[i], 1)
            parts = _part(x, i, slice(at, None)), _part(x, i, slice(at))
            x = self.concat(parts, axis=int(i))
        return x

    def diff(self, x: TracedArray, *, axis: int = -1, n: int = 1) -> TracedArray:
        for _ in range(n):
            x = _part(x, axis, slice(1, None)) - _part(x, axis, slice(-1))
        return x

    def tile(self, x: TracedArray, repetitions: Sequence[int]) -> TracedArray:
        for i, n in enumerate(reversed(repetitions)):
            x = x if i < x.ndim else self.expand_dims(x)
            x = self.concat([x] * n, axis=-1 - i) if n else _part(x, -1 - i, slice(0))
        return x

    def repeat(self, x: TracedArray, n: int, *, axis: int | None = None) -> TracedArray:
        at = _axis(axis, x.ndim)
        spread = self.stack([x] * n, axis=at + 1)
        return self.reshape(spread, (*x.shape[:at], x.shape[at] * n, *x.shape[at + 1 :]))

    def flip(self, x: TracedArray, *, axis: Any = None) -> TracedArray:
        for i in _axes(axis, x.ndim):
            x = apply("flip", x, i, shape=x.shape, dtype=x.dtype)
        return x

    # --- sums and products -----------------------------------------------------------------------

    def _reduce(
        self,
        name: str,
        x: TracedArray,
        *,
        axis: Any = None,
        keepdims: bool = False,
    ) -> TracedArray:
        axes = _axes(axis, x.ndim)
        shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        result = apply(name, x, axes, shape=shape, dtype=x.dtype) if axes else x
        kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        return self.reshape(result, kept) if keepdims else result

    max, min = map(partial(partialmethod, _reduce), ("max", "min"))

    def _decide(self, name: str, x: TracedArray, **options: Any) -> TracedArray:
        return self._reduce(name, x if x.dtype == "bool" else x != 0, **options)

    any, all = map(partial(partialmethod, _decide), ("any", "all"))

    def _accumulate(
        self, name: str, x: TracedArray, *, dtype: Any = None, **options: Any
    ) -> TracedArray:
        if dtype is None and not is_float(x.dtype) and x.dtype != "uint64":
            dtype = "int64"  # Sums of small integers would overflow.
        return self._reduce(name, x if dtype is None else self.astype(x, dtype), **options)

    sum, prod = map(partial(partialmethod, _accumulate), ("sum", "prod"))

    def mean(self, x: TracedArray, *, axis: Any = None, keepdims: bool = False) -> TracedArray:
        n = math.prod(x.shape[i] for i in _axes(axis, x.ndim))
        return self.sum(x, axis=axis, keepdims=keepdims) / float(n)

    def var(
        self,
        x: TracedArray,
        *,
        axis: Any = None,
        correction: float = 0.0,
        keepdims: bool = False,
    ) -> TracedArray:
        n = math.prod(x.shape[i] for i in _axes(axis, x.ndim))
        apart = x - self.mean(x, axis=axis, keepdims=True)
        return self.sum(multiply(apart, apart), axis=axis, keepdims=keepdims) / float(
            n - correction
        )

    def std(self, x: TracedArray, **options: Any) -> TracedArray:
        return operation("sqrt", self.var(x, **options))

    def vector_norm(
        self, x: TracedArray, *, axis: Any = None, keepdims: bool = False, ord: Any = 2
    ) -> TracedArray:
        if ord != 2:
            raise FormulaError("xp.linalg.vector_norm can be traced with ord=2 only.")
        total = self.sum(multiply(x, x), axis=axis, keepdims=keepdims)
        is_zero = total == 0.0  # The gradient is 0 there, the subgradient of least norm.
        return self.where(is_zero, 0.0, operation("sqrt", self.where(is_zero, 1.0, total)))

    def vecdot(self, a: TracedArray, b: TracedArray, *, axis: int = -1) -> TracedArray:
        return self.sum(multiply(a, b), axis=axis)

    def tensordot(self, a: TracedArray, b: TracedArray, *, axes: Any = 2) -> TracedArray:
        if isinstance(axes, int):
            axes = range(a.ndim - axes, a.ndim), range(axes)
        summed = [i % a.ndim for i in axes[0]]
        summed_b = [i % b.ndim for i in axes[1]]
        kept = [i for i in range(a.ndim) if i not in summed]
        kept_b = [i for i in range(b.ndim) if i not in summed_b]
        n = math.prod(a.shape[i] for i in summed)
        rows = reshape(permute(a, [*kept, *summed]), (a.size // max(n, 1), n))
        columns = reshape(permute(b, [*summed_b, *kept_b]), (n, b.size // max(n, 1)))
        shape = [a.shape[i] for i in kept] + [b.shape[i] for i in kept_b]
        return reshape(matmul(rows, columns), shape)

    def count_nonzero(
        self, x: TracedArray, *, axis: Any = None, keepdims: bool = False
    ) -> TracedArray:
        return self.sum(x if x.dtype == "bool" else x != 0, axis=axis, keepdims=keepdims)

    def cumulative_sum(self, x: TracedArray, *, axis: int | None = None) -> TracedArray:
        at = _axis(axis, x.ndim)
        return apply("cumulative_sum", x, at, shape=x.shape, dtype=x.dtype)

    # --- positions -------------------------------------------------------------------------------

    def take(self, x: TracedArray, positions: Any, *, axis: int | None = None) -> TracedArray:
        at = _axis(axis, x.ndim)
        nodes = (x.node, as_node(positions))
        shape = (*x.shape[:at], *nodes[1].shape, *x.shape[at + 1 :])
        return TracedArray(Node("take", nodes, (at,), shape, x.dtype))

    def take_along_axis(self, x: TracedArray, positions: Any, *, axis: int = -1) -> TracedArray:
        at = _axis(axis, x.ndim)
        nodes = (x.node, as_node(positions))
        rest = [(*n.shape[:at], *n.shape[at + 1 :]) for n in nodes]
        shape = list(broadcast("take_along_axis", rest))
        shape.insert(at, nodes[1].shape[at])
        return TracedArray(Node("take_along_axis", nodes, (at,), tuple(shape), x.dtype))

    def _position(self, name: str, x: TracedArray, *, axis: int = -1) -> TracedArray:
        at = _axis(axis, x.ndim)
        shape = (*x.shape[:at], *x.shape[at + 1 :])
        return apply(name, x, at, shape=shape, dtype="int64")

    argmax, argmin = map(partial(partialmethod, _position), ("argmax", "argmin"))

    def argsort(self, x: TracedArray, *, axis: int = -1, descending: bool = False) -> TracedArray:
        at = _axis(axis, x.ndim)
        return apply("argsort", x, at, descending, shape=x.shape, dtype="int64")

    def sort(self, x: TracedArray, *, axis: int = -1, descending: bool = False) -> TracedArray:
        order = self.argsort(x, axis=axis, descending=descending)
        return self.take_along_axis(x, order, axis=axis)
