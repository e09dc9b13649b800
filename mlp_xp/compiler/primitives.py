"""The primitives: the Array API functions of which graphs consist, each with its derivative.

A derivative is written like any formula, against the Array API: it receives the namespace, the
gradient ``dy``, the result ``y`` and the operands (numbers as Python numbers), and returns the
gradient with respect to each operand, or None where there is none. `mlp_xp.compiler.gradient` sums
the gradients of operands that were broadcast.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

# The derivative of a function that is constant almost everywhere.
ZERO: Any = object()


class Primitive(NamedTuple):
    """A row of the table of primitives.

    Attributes
    ----------
    derivative : callable, ZERO or None
        ``derivative(xp, dy, y, *operands, *settings)``; None if there is no rule.
    result : str
        The dtype of the result: ``"same"`` for the operands' common dtype, ``"float"`` for that
        dtype if it must be floating-point, ``"bool"``, or ``"settings"`` if the settings define it.
    compute : callable or None
        ``compute(xp, *operands, *settings)`` returns the result; None for the Array API function
        with the primitive's name, called with them.
    """

    derivative: Any
    result: str = "same"
    compute: Callable[..., Any] | None = None


def _operator(name: str) -> Callable[..., Any]:
    # Operators accept Python numbers on every backend; functions do so only since version 2024.12.
    function = getattr(operator, name)
    return lambda xp, *operands: function(*operands)


def _is_constant(operand: Any) -> bool:
    return isinstance(operand, int | float) or operand.node.operation == "constant"


def _extreme(xp: Any, dy: Any, a: Any, b: Any, is_first: Any) -> tuple[Any, Any]:
    """Return the gradients of ``maximum`` or ``minimum``, which equal operands share.

    Where an operand equals a constant, as at the kink of ``maximum(x, 0.0)``, its gradient is 0.
    """
    half = 0.0 if _is_constant(a) or _is_constant(b) else 0.5
    shared = xp.where(a == b, dy * half, 0.0) if half else 0.0
    return xp.where(is_first, dy, shared), xp.where(is_first | (a == b), shared, dy)


def _power(xp: Any, dy: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    # Where the base is 0, the power does not depend on a positive exponent.
    if isinstance(a, int | float):
        return None, dy * y * (math.log(a) if a > 0.0 else 0.0)
    if isinstance(b, int | float):
        return (dy * b * a ** (b - 1.0) if b else None), None
    da = dy * b * a ** xp.where(b == 0.0, 0.0, b - 1.0)
    return da, None if _is_constant(b) else dy * y * xp.log(xp.where(a == 0.0, 1.0, a))


def _logaddexp(xp: Any, dy: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    def weighted(x: Any) -> Any:
        if isinstance(x, int | float):
            return None
        is_largest = x == y  # Infinities have no difference.
        apart = xp.where(is_largest, 0.0, x) - xp.where(is_largest, 0.0, y)
        return dy * xp.where(a == b, 0.5, xp.exp(apart))

    return weighted(a), weighted(b)


def _atan2(xp: Any, dy: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    scaled = dy / (a * a + b * b)
    return scaled * b, -scaled * a


def _sum(xp: Any, dy: Any, y: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any]:
    return (xp.broadcast_to(_restore(xp, dy, x, axes), x.shape),)


def _restore(xp: Any, reduced: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Return the result of a reduction with the reduced axes of x as axes of length 1."""
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return xp.reshape(reduced, shape)


def _extreme_along(xp: Any, dy: Any, y: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any]:
    is_extreme = xp.astype(x == _restore(xp, y, x, axes), x.dtype)
    n_extremes = xp.sum(is_extreme, axis=axes, keepdims=True)
    return (is_extreme * (_restore(xp, dy, x, axes) / n_extremes),)


def _along(name: str) -> Callable[..., Any]:
    """Return the function of operands, and of an axis or axes as the only setting."""
    return lambda xp, *given: getattr(xp, name)(*given[:-1], axis=given[-1])


def _matmul(xp: Any, dy: Any, y: Any, a: Any, b: Any) -> tuple[Any, Any]:
    return dy @ xp.matrix_transpose(b), xp.matrix_transpose(a) @ dy


def _permute(xp: Any, dy: Any, y: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any]:
    return (xp.permute_dims(dy, tuple(axes.index(i) for i in range(len(axes)))),)


def _index(xp: Any, dy: Any, y: Any, x: Any, *key: Any) -> tuple[Any]:
    """Spread the gradient of ``x[key]`` over zeros, by `take`, which every library can trace."""
    kept = tuple(1 if type(k) is int else len(range(*k)) for k in key if k is not None)
    dx = xp.reshape(dy, kept)
    for axis, (k, n) in enumerate(zip((k for k in key if k is not None), x.shape, strict=True)):
        taken = range(k, k + 1) if type(k) is int else range(*k)
        if taken == range(n):
            continue
        # The position of each entry of x in the gradient; the last position is for zeros.
        positions = [len(taken)] * n
        for position, i in enumerate(taken):
            positions[i] = position
        blank = xp.zeros((*dx.shape[:axis], 1, *dx.shape[axis + 1 :]), dtype=dx.dtype)
        dx = xp.take(xp.concat([dx, blank], axis=axis), xp.asarray(positions), axis=axis)
    return (dx,)


def _compute_index(xp: Any, x: Any, *key: Any) -> Any:
    return x[tuple(k if k is None or type(k) is int else slice(*k) for k in key)]


def _concat(xp: Any, dy: Any, y: Any, *operands: Any) -> list[Any]:
    *arrays, axis = operands
    found, start = [], 0
    for array in arrays:
        stop = start + array.shape[axis]
        found.append(dy[(*[slice(None)] * axis, slice(start, stop))])
        start = stop
    return found


def _matches(xp: Any, positions: Any, n: int) -> Any:
    """Return whether positions are 0, 1, ... n - 1 from the start, along a new axis before last."""
    places = xp.arange(n, dtype=positions.dtype)[:, None]
    return places == xp.where(positions < 0, positions + n, positions)


def _take(xp: Any, dy: Any, y: Any, x: Any, positions: Any, axis: int) -> tuple[Any, None]:
    """Sum the gradients of equal positions by a product with a matrix of zeros and ones."""
    matrix = xp.astype(_matches(xp, positions, x.shape[axis]), dy.dtype)
    return xp.moveaxis(matrix @ xp.moveaxis(dy, axis, -2), -2, axis), None


def _take_along(xp: Any, dy: Any, y: Any, x: Any, positions: Any, axis: int) -> tuple[Any, None]:
    last_dy = xp.moveaxis(dy, axis, -1)
    matches = _matches(xp, xp.moveaxis(positions, axis, -1)[..., None, :], x.shape[axis])
    spread = xp.where(matches, last_dy[..., None, :], 0.0)
    # With one position per row, as in losses of labels, elementwise loops can read the result.
    dx = xp.squeeze(spread, axis=-1) if spread.shape[-1] == 1 else xp.sum(spread, axis=-1)
    return xp.moveaxis(dx, -1, axis), None


def _cumulative(xp: Any, dy: Any, y: Any, x: Any, axis: int) -> tuple[Any]:
    return (xp.flip(xp.cumulative_sum(xp.flip(dy, axis=axis), axis=axis), axis=axis),)


def _comparison(name: str) -> Primitive:
    return Primitive(ZERO, "bool", _operator(name))


# The elementwise functions with one operand.
UNARY = {
    "negative": Primitive(lambda xp, dy, y, x: (-dy,), "same", _operator("neg")),
    "abs": Primitive(lambda xp, dy, y, x: (dy * xp.sign(x),)),
    "exp": Primitive(lambda xp, dy, y, x: (dy * y,), "float"),
    "expm1": Primitive(lambda xp, dy, y, x: (dy * (y + 1.0),), "float"),
    "log": Primitive(lambda xp, dy, y, x: (dy / x,), "float"),
    "log1p": Primitive(lambda xp, dy, y, x: (dy / (x + 1.0),), "float"),
    "log2": Primitive(lambda xp, dy, y, x: (dy / (x * math.log(2)),), "float"),
    "log10": Primitive(lambda xp, dy, y, x: (dy / (x * math.log(10)),), "float"),
    "sqrt": Primitive(lambda xp, dy, y, x: (dy * (0.5 / y),), "float"),
    "reciprocal": Primitive(lambda xp, dy, y, x: (-dy * y * y,), "float"),
    "sin": Primitive(lambda xp, dy, y, x: (dy * xp.cos(x),), "float"),
    "cos": Primitive(lambda xp, dy, y, x: (-dy * xp.sin(x),), "float"),
    "tan": Primitive(lambda xp, dy, y, x: (dy * (y * y + 1.0),), "float"),
    "sinh": Primitive(lambda xp, dy, y, x: (dy * xp.cosh(x),), "float"),
    "cosh": Primitive(lambda xp, dy, y, x: (dy * xp.sinh(x),), "float"),
    "tanh": Primitive(lambda xp, dy, y, x: (dy * (1.0 - y * y),), "float"),
    "asin": Primitive(lambda xp, dy, y, x: (dy / xp.sqrt(1.0 - x * x),), "float"),
    "acos": Primitive(lambda xp, dy, y, x: (-dy / xp.sqrt(1.0 - x * x),), "float"),
    "atan": Primitive(lambda xp, dy, y, x: (dy / (x * x + 1.0),), "float"),
    "asinh": Primitive(lambda xp, dy, y, x: (dy / xp.sqrt(x * x + 1.0),), "float"),
    "acosh": Primitive(lambda xp, dy, y, x: (dy / xp.sqrt(x * x - 1.0),), "float"),
    "atanh": Primitive(lambda xp, dy, y, x: (dy / (1.0 - x * x),), "float"),
    "sign": Primitive(ZERO),
    "floor": Primitive(ZERO),
    "ceil": Primitive(ZERO),
    "round": Primitive(ZERO),
    "trunc": Primitive(ZERO),
    "isfinite": Primitive(ZERO, "bool"),
    "isinf": Primitive(ZERO, "bool"),
    "isnan": Primitive(ZERO, "bool"),
    "logical_not": Primitive(ZERO, "bool"),
}
# The elementwise functions with several operands.
_SEVERAL = {
    "add": Primitive(lambda xp, dy, y, a, b: (dy, dy), "same", _operator("add")),
    "subtract": Primitive(lambda xp, dy, y, a, b: (dy, -dy), "same", _operator("sub")),
    "multiply": Primitive(lambda xp, dy, y, a, b: (dy * b, dy * a), "same", _operator("mul")),
    "divide": Primitive(
        lambda xp, dy, y, a, b: (dy / b, -dy * y / b), "float", _operator("truediv")
    ),
    "pow": Primitive(_power, "same", _operator("pow")),
    "remainder": Primitive(
        lambda xp, dy, y, a, b: (dy, -dy * xp.floor(a / b)), "same", _operator("mod")
    ),
    "floor_divide": Primitive(ZERO, "same", _operator("floordiv")),
    "maximum": Primitive(lambda xp, dy, y, a, b: _extreme(xp, dy, a, b, a > b)),
    "minimum": Primitive(lambda xp, dy, y, a, b: _extreme(xp, dy, a, b, a < b)),
    "logaddexp": Primitive(_logaddexp, "float"),
    "hypot": Primitive(lambda xp, dy, y, a, b: (dy * (a / y), dy * (b / y)), "float"),
    "atan2": Primitive(_atan2, "float"),
    "copysign": Primitive(
        lambda xp, dy, y, a, b: (xp.where((a < 0.0) == (y < 0.0), dy, -dy), None), "float"
    ),
    "less": _comparison("lt"),
    "less_equal": _comparison("le"),
    "greater": _comparison("gt"),
    "greater_equal": _comparison("ge"),
    "equal": _comparison("eq"),
    "not_equal": _comparison("ne"),
    "logical_and": Primitive(ZERO, "bool"),
    "logical_or": Primitive(ZERO, "bool"),
    "logical_xor": Primitive(ZERO, "bool"),
    "bitwise_and": Primitive(ZERO, "same", _operator("and_")),
    "bitwise_or": Primitive(ZERO, "same", _operator("or_")),
    "bitwise_xor": Primitive(ZERO, "same", _operator("xor")),
    "bitwise_left_shift": Primitive(ZERO, "same", _operator("lshift")),
    "bitwise_right_shift": Primitive(ZERO, "same", _operator("rshift")),
    "where": Primitive(
        lambda xp, dy, y, c, a, b: (None, xp.where(c, dy, 0.0), xp.where(c, 0.0, dy))
    ),
}
ELEMENTWISE = UNARY | _SEVERAL
# The reductions, whose setting is a tuple of axes.
REDUCTIONS = {
    "sum": Primitive(_sum, "settings", _along("sum")),
    "max": Primitive(_extreme_along, "settings", _along("max")),
    "min": Primitive(_extreme_along, "settings", _along("min")),
    "prod": Primitive(None, "settings", _along("prod")),
    "any": Primitive(ZERO, "settings", _along("any")),
    "all": Primitive(ZERO, "settings", _along("all")),
}
PRIMITIVES = (
    ELEMENTWISE
    | REDUCTIONS
    | {
        "astype": Primitive(
            lambda xp, dy, y, x, dtype: (xp.astype(dy, x.dtype),),
            "settings",
            lambda xp, x, dtype: xp.astype(x, getattr(xp, dtype), copy=False),
        ),
        "matmul": Primitive(_matmul, "same", _operator("matmul")),
        "reshape": Primitive(lambda xp, dy, y, x, shape: (xp.reshape(dy, x.shape),), "settings"),
        "permute_dims": Primitive(_permute, "settings"),
        "broadcast_to": Primitive(lambda xp, dy, y, x, shape: (dy,), "settings"),
        "index": Primitive(_index, "settings", _compute_index),
        "concat": Primitive(
            _concat, "same", lambda xp, *given: xp.concat(list(given[:-1]), axis=given[-1])
        ),
        "flip": Primitive(
            lambda xp, dy, y, x, axis: (xp.flip(dy, axis=axis),), "settings", _along("flip")
        ),
        "take": Primitive(_take, "settings", _along("take")),
        "take_along_axis": Primitive(_take_along, "settings", _along("take_along_axis")),
        "cumulative_sum": Primitive(_cumulative, "settings", _along("cumulative_sum")),
        "argmax": Primitive(ZERO, "settings", _along("argmax")),
        "argmin": Primitive(ZERO, "settings", _along("argmin")),
        "argsort": Primitive(
            ZERO,
            "settings",
            lambda xp, x, axis, descending: xp.argsort(x, axis=axis, descending=descending),
        ),
    }
)
