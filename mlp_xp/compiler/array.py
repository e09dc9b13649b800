"""Arrays that record a formula as a graph.

In-place operators replace an array's node by a new one, so graphs have no writes. A formula may
depend on shapes and dtypes, but not on values: these do not exist yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from mlp_xp.compiler.graph import FormulaError, Node
from mlp_xp.compiler.primitives import PRIMITIVES

FLOATS = ("bfloat16", "float16", "float32", "float64")
INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def dtype_name(dtype: Any) -> str:
    """Return the name of any library's dtype, e.g. ``"float32"``."""
    if isinstance(dtype, str):
        return dtype
    name = getattr(dtype, "name", None) or str(dtype)
    return str(name).rpartition(".")[2]


def is_float(dtype: str) -> bool:
    """Whether a dtype, or the type of a Python number, is floating-point."""
    return dtype.startswith(("float", "bfloat"))


def _kind(dtype: str) -> int:
    return 2 if is_float(dtype) else 0 if dtype == "bool" else 1


def common_dtype(name: str, nodes: Sequence[Node]) -> str:
    """Return the common dtype of operands, by the rules of the Array API standard."""
    strong = list(dict.fromkeys(n.dtype for n in nodes if n.operation != "number"))
    weak = max((_kind(n.dtype) for n in nodes if n.operation == "number"), default=0)
    if len({_kind(dtype) for dtype in strong}) > 1 or (strong and weak > _kind(strong[0])):
        given = ", ".join(n.dtype for n in nodes)
        raise FormulaError(
            f"xp.{name} combines the dtypes {given}; convert integers with xp.astype(a, x.dtype)."
        )
    if len(strong) == 1:
        return strong[0]
    if not is_float(strong[0]):
        return str(np.result_type(*strong))
    if set(strong) == {"bfloat16", "float16"}:
        return "float32"
    return max(strong, key=FLOATS.index)


def broadcast(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the broadcast shape."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        given = " and ".join(map(str, shapes))
        raise FormulaError(f"xp.{name} cannot broadcast the shapes {given}.") from None


def as_node(operand: Any) -> Node:
    """Return the node of an operand: a traced array, a Python number, or an array of a library."""
    if isinstance(operand, TracedArray):
        return operand.node
    for kind in (bool, int, float):
        if isinstance(operand, kind):  # Also a subclass, such as np.float64.
            return Node("number", (), (kind(operand),), (), kind.__name__)
    if hasattr(operand, "shape") and hasattr(operand, "dtype"):
        shape = tuple(operand.shape)
        return Node("constant", (), (_content(operand),), shape, dtype_name(operand.dtype), operand)
    raise FormulaError(
        f"a formula can combine arrays with numbers and arrays, got {type(operand).__name__}."
    )


def _content(array: Any) -> Any:
    """Return what identifies an array: its content, or its id if it is not on the host."""
    try:
        return np.asarray(array).tobytes()
    except Exception:  # Each library has its own errors for arrays on a device.
        return id(array)


def operation(name: str, *operands: Any) -> TracedArray:
    """Return the result of an elementwise primitive."""
    primitive, nodes = PRIMITIVES[name], tuple(map(as_node, operands))
    if not any(isinstance(operand, TracedArray) for operand in operands):
        raise FormulaError(f"xp.{name} must be called with an array.")
    dtype = common_dtype(name, nodes[1:] if name == "where" else nodes)
    if primitive.result == "bool":
        dtype = "bool"
    elif primitive.result == "float" and not is_float(dtype):
        raise FormulaError(
            f"xp.{name} needs floating-point numbers, got {dtype}; convert with "
            "xp.astype(a, x.dtype)."
        )
    shape = broadcast(name, [node.shape for node in nodes])
    return TracedArray(Node(name, nodes, (), shape, dtype))


def apply(
    name: str, x: TracedArray, *settings: Any, shape: Sequence[int], dtype: str
) -> TracedArray:
    """Return the result of a primitive with one operand."""
    return TracedArray(Node(name, (x.node,), settings, tuple(shape), dtype))


def multiply(a: Any, b: Any) -> TracedArray:
    """Return a product, which is the other factor if one is 1.0."""
    for x, factor in ((a, b), (b, a)):
        if type(factor) is float and factor == 1.0 and is_float(x.dtype):
            return TracedArray(as_node(x))
    return operation("multiply", a, b)


def power(a: Any, b: Any) -> TracedArray:
    """Return a power; small integer powers are products, which are exact and fast."""
    if type(b) in (int, float) and b in (0.5, -1) and is_float(a.dtype):
        return operation("sqrt" if b == 0.5 else "reciprocal", a)
    if type(b) in (int, float) and b in range(1, 9):
        result, square, n = None, a, int(b)
        while n:
            if n % 2:
                result = square if result is None else multiply(result, square)
            n //= 2
            square = multiply(square, square) if n else square
        return TracedArray(as_node(result))
    return operation("pow", a, b)


class TracedArray(NDArrayOperatorsMixin):
    """An array without values, whose operations make nodes.

    ``origin`` is the name of a formula's argument, which must not be written to. ``is_view`` is
    true if a write would also change another array, which cannot be traced.
    """

    __slots__ = ("is_view", "node", "origin")

    def __init__(self, node: Node, *, origin: str = "", is_view: bool = False) -> None:
        self.node, self.origin, self.is_view = node, origin, is_view

    shape = property(lambda self: self.node.shape)
    dtype = property(lambda self: self.node.dtype)
    ndim = property(lambda self: len(self.node.shape))
    size = property(lambda self: math.prod(self.node.shape))
    device = "traced"

    @property
    def T(self) -> TracedArray:
        """The array with its axes in reverse order."""
        return permute(self, range(self.ndim)[::-1])

    @property
    def mT(self) -> TracedArray:
        """The array with its last two axes exchanged."""
        return permute(self, (*range(self.ndim - 2), self.ndim - 1, self.ndim - 2))

    def __repr__(self) -> str:
        return f"<traced {self.dtype}{list(self.shape)}>"

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Iterator[TracedArray]:
        return (self[i] for i in range(len(self)))

    __hash__ = None  # type: ignore[assignment]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None) -> Any:
        """Compute an operator; NumPy's mixin calls its function."""
        if method != "__call__" or ufunc not in _OPERATORS:
            self.__array__()
        new = _OPERATORS[ufunc](*inputs)
        return new if out is None else out[0]._write(new)

    def _write(self, new: TracedArray) -> TracedArray:
        if self.origin:
            raise FormulaError(
                f"it writes to its {self.origin}, which must not change: write only to new arrays."
            )
        if self.is_view or new.shape != self.shape or new.dtype != self.dtype:
            raise FormulaError(
                "it writes to a part of an array, or changes its shape or dtype; write y = y * 2 "
                "instead of y *= 2."
            )
        self.node = new.node
        return self

    def __getitem__(self, key: Any) -> TracedArray:
        keys = key if isinstance(key, tuple) else (key,)
        n_given = sum(k is not None and k is not ... for k in keys)
        if n_given > self.ndim:
            raise FormulaError(f"the index {key!r} has more axes than the shape {self.shape}.")
        at = next((i for i, k in enumerate(keys) if k is ...), len(keys))
        keys = (*keys[:at], *[slice(None)] * (self.ndim - n_given), *keys[at + 1 :])
        entries: list[Any] = []
        shape: list[int] = []
        reversed_axes: list[int] = []  # Not every library has negative steps.
        lengths = iter(self.shape)
        for k in keys:
            if k is None:
                entries.append(None)
                shape.append(1)
            elif isinstance(k, slice):
                taken = range(*k.indices(next(lengths)))
                if taken.step < 0:
                    reversed_axes.append(len(shape))
                    taken = range(taken[-1], taken[0] + 1, -taken.step) if taken else range(0)
                entries.append((taken.start, taken.stop, taken.step))
                shape.append(len(taken))
            elif type(k) is int:
                n = next(lengths)
                if not -n <= k < n:
                    raise FormulaError(f"the index {k} is out of range for an axis of length {n}.")
                entries.append(k % n)
            else:
                raise FormulaError(
                    f"an index must consist of integers, slices, None and ..., got {k!r}; use "
                    "xp.where for a mask, and xp.take for positions."
                )
        is_whole = entries == [(0, n, 1) for n in self.shape]
        found = self if is_whole else view("index", self, *entries, shape=shape)
        for axis in reversed_axes:
            found = view("flip", found, axis, shape=shape)
        return TracedArray(found.node, is_view=True)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise FormulaError(
            "a formula cannot assign to a part of an array; use xp.where, or xp.concat to put "
            "parts together."
        )

    def _no_value(self, *_: Any, **__: Any) -> NoReturn:
        raise FormulaError(
            "it needs the value of an array, e.g. to branch on it, and so cannot be differentiated "
            "or compiled; use xp.where(condition, a, b) instead of `if`, and return the value "
            "together with a pullback if that is not possible."
        )

    __bool__ = __float__ = __int__ = __index__ = __complex__ = _no_value

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise FormulaError(
            "it calls a function of NumPy or SciPy; use the functions of its argument xp."
        )

    def __array_function__(self, *_: Any, **__: Any) -> NoReturn:
        self.__array__()


def view(name: str, x: TracedArray, *settings: Any, shape: Sequence[int]) -> TracedArray:
    """Return a primitive's result that may share memory with its operand."""
    found = apply(name, x, *settings, shape=shape, dtype=x.dtype)
    found.is_view = True
    return found


def permute(x: TracedArray, axes: Sequence[int]) -> TracedArray:
    """Return the array with its axes in another order."""
    axes = tuple(i % x.ndim for i in axes)
    if axes == tuple(range(x.ndim)):
        return TracedArray(x.node, is_view=True)
    return view("permute_dims", x, axes, shape=[x.shape[i] for i in axes])


def reshape(x: TracedArray, shape: Any) -> TracedArray:
    """Return the array in another shape, in which one length may be -1."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if -1 in shape:
        known = math.prod(n for n in shape if n != -1)
        shape = tuple(x.size // max(known, 1) if n == -1 else n for n in shape)
    if math.prod(shape) != x.size:
        raise FormulaError(f"xp.reshape cannot change the shape {x.shape} to {shape}.")
    if shape == x.shape:
        return TracedArray(x.node, is_view=True)
    return view("reshape", x, shape, shape=shape)


def matmul(a: Any, b: Any) -> TracedArray:
    """Return the matrix product; a vector is a row on the left, and a column on the right."""
    a, b = (TracedArray(as_node(x)) for x in (a, b))
    rows = a if a.ndim > 1 else reshape(a, (1, -1))
    columns = b if b.ndim > 1 else reshape(b, (-1, 1))
    if rows.shape[-1] != columns.shape[-2]:
        raise FormulaError(f"xp.matmul cannot multiply the shapes {a.shape} and {b.shape}.")
    nodes = (rows.node, columns.node)
    stack = broadcast("matmul", [rows.shape[:-2], columns.shape[:-2]])
    shape = (*stack, rows.shape[-2], columns.shape[-1])
    y = TracedArray(Node("matmul", nodes, (), shape, common_dtype("matmul", nodes)))
    kept = (*stack, *(rows.shape[-2:-1] if a.ndim > 1 else ()))
    kept += columns.shape[-1:] if b.ndim > 1 else ()
    return y if kept == shape else reshape(y, kept)


# The functions that NumPy's mixin calls for operators.
_OPERATORS: dict[Any, Callable[..., TracedArray]] = {
    np.multiply: multiply,
    np.power: power,
    np.matmul: matmul,
    np.positive: lambda x: TracedArray(x.node),
}
_NAMES: dict[Any, str] = {
    **{np.add: "add", np.subtract: "subtract", np.true_divide: "divide"},
    **{np.floor_divide: "floor_divide", np.remainder: "remainder"},
    **{np.negative: "negative", np.absolute: "abs", np.invert: "logical_not"},
    **{np.left_shift: "bitwise_left_shift", np.right_shift: "bitwise_right_shift"},
    **{np.less: "less", np.less_equal: "less_equal", np.greater: "greater"},
    **{np.greater_equal: "greater_equal", np.equal: "equal", np.not_equal: "not_equal"},
}


def _bitwise(name: str) -> Callable[..., TracedArray]:
    """Return the operator that is logical for truth values, and bitwise for integers."""

    def apply_operator(a: Any, b: Any) -> TracedArray:
        array = a if isinstance(a, TracedArray) else b
        return operation(f"{'logical' if array.dtype == 'bool' else 'bitwise'}_{name}", a, b)

    return apply_operator


_OPERATORS |= {
    np.bitwise_and: _bitwise("and"),
    np.bitwise_or: _bitwise("or"),
    np.bitwise_xor: _bitwise("xor"),
}
_OPERATORS |= {ufunc: partial(operation, name) for ufunc, name in _NAMES.items()}
