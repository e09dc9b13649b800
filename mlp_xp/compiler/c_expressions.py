"""The C expression of each elementwise primitive, which is also valid in C++ and CUDA.

An expression repeats its operands, so these must be names of variables or literals. Results are as
NumPy's: NaN propagates, integers wrap around. The macros ``INFINITY`` and ``NAN`` of ``math.h``
must be defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlp_xp.compiler.array import common_dtype, is_float
from mlp_xp.compiler.graph import Node
from mlp_xp.compiler.kernel import UnprintableError
from mlp_xp.compiler.primitives import ELEMENTWISE

# The C type of each dtype; truth values are 0 or 1.
C_TYPES = {
    "float32": "float",
    "float64": "double",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "bool": "unsigned char",
}
# Functions of math.h that have another name than the primitive; all others have the same.
_NAMES = {"abs": "fabs", "round": "rint"}
_FUNCTIONS = (
    *("abs", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "floor", "ceil", "round"),
    *("trunc", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan", "asinh"),
    *("acosh", "atanh"),
)
_BY_OPERATOR = {
    **{"less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">="},
    **{"equal": "==", "not_equal": "!=", "logical_and": "&&", "logical_or": "||"},
}
# The primitive that adds an element to a reduction's result.
_STEPS = {
    **{"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum"},
    **{"any": "logical_or", "all": "logical_and"},
}
# In these tables, a, b and c are the operands, T is the operands' type, U its unsigned type, and f
# the suffix of functions for this type.
_COMMON = {name: f"({{a}} {operator} {{b}})" for name, operator in _BY_OPERATOR.items()} | {
    "logical_not": "(!{a})",
    "logical_xor": "(!{a} != !{b})",
    "where": "({a} ? {b} : {c})",
}
_FLOAT = {
    **{name: f"{_NAMES.get(name, name)}{{f}}({{a}})" for name in _FUNCTIONS},
    **{name: f"{name}{{f}}({{a}}, {{b}})" for name in ("pow", "hypot", "atan2", "copysign")},
    "negative": "(-{a})",
    "add": "({a} + {b})",
    "subtract": "({a} - {b})",
    "multiply": "({a} * {b})",
    "divide": "({a} / {b})",
    "reciprocal": "(1 / {a})",
    "sign": "({a} > 0 ? 1 : {a} < 0 ? -1 : {a} == 0 ? 0 : {a})",
    "maximum": "({a} != {a} || {a} > {b} ? {a} : {b})",
    "minimum": "({a} != {a} || {a} < {b} ? {a} : {b})",
    # The remainder has the sign of b, also if it is 0.
    "remainder": "(fmod{f}({a}, {b}) == 0 ? copysign{f}(0, {b}) : ({b} < 0) != (fmod{f}({a}, {b}) "
    "< 0) ? fmod{f}({a}, {b}) + {b} : fmod{f}({a}, {b}))",
    # The difference is a multiple of b, so the quotient is a whole number, except for rounding.
    "floor_divide": "({b} == 0 ? {a} / {b} : copysign{f}(rint{f}(({a} - fmod{f}({a}, {b})) / {b} - "
    "(fmod{f}({a}, {b}) != 0 && ({b} < 0) != (fmod{f}({a}, {b}) < 0))), {a} / {b}))",
    # Infinities of the same sign have no difference.
    "logaddexp": "({a} == {b} ? {a} + {log_2} : ({a} != {a} || {a} > {b} ? {a} : {b}) + "
    "log1p{f}(exp{f}(-fabs{f}({a} - {b}))))",
    "isfinite": "(fabs{f}({a}) < INFINITY)",
    "isinf": "(fabs{f}({a}) == INFINITY)",
    "isnan": "({a} != {a})",
}
_INTEGER = {
    "negative": "({T})(0 - ({U}){a})",
    "add": "({T})(({U}){a} + ({U}){b})",
    "subtract": "({T})(({U}){a} - ({U}){b})",
    "multiply": "({T})(({U}){a} * ({U}){b})",
    "abs": "({a} < 0 ? ({T})(0 - ({U}){a}) : {a})",
    "sign": "(({a} > 0) - ({a} < 0))",
    "maximum": "({a} > {b} ? {a} : {b})",
    "minimum": "({a} < {b} ? {a} : {b})",
    # As in NumPy, a division by 0 is 0, and so is the remainder.
    "floor_divide": "({b} == 0 ? 0 : {b} == -1 ? ({T})(0 - ({U}){a}) : {a} / {b} - ({a} % {b} != 0 "
    "&& ({a} < 0) != ({b} < 0)))",
    "remainder": "({b} == 0 || {b} == -1 ? 0 : {a} % {b} != 0 && ({a} < 0) != ({b} < 0) ? {a} % {b}"
    " + {b} : {a} % {b})",
    "bitwise_and": "({a} & {b})",
    "bitwise_or": "({a} | {b})",
    "bitwise_xor": "({a} ^ {b})",
    "bitwise_left_shift": "(({U}){b} < {bits} ? ({T})(({U}){a} << {b}) : 0)",
    "bitwise_right_shift": "(({U}){b} < {bits} ? {a} >> {b} : {a} < 0 ? -1 : 0)",
    **dict.fromkeys(("floor", "ceil", "trunc", "round"), "{a}"),
}
# Comparisons with 0 that are always false are warnings of compilers, so unsigned numbers have their
# own expressions.
_UNSIGNED = _INTEGER | {
    "abs": "{a}",
    "sign": "({a} != 0)",
    "floor_divide": "({b} == 0 ? 0 : {a} / {b})",
    "remainder": "({b} == 0 ? 0 : {a} % {b})",
    "bitwise_right_shift": "({b} < {bits} ? {a} >> {b} : 0)",
}
_BOOL = {
    **dict.fromkeys(("add", "maximum", "bitwise_or"), "({a} | {b})"),
    **dict.fromkeys(("multiply", "minimum", "bitwise_and"), "({a} & {b})"),
    "bitwise_xor": "({a} ^ {b})",
}


def c_type(dtype: str) -> str:
    """Return the C type of a dtype. Raise UnprintableError if there is none."""
    if dtype not in C_TYPES:
        raise UnprintableError(f"C has no type for {dtype}")
    return C_TYPES[dtype]


def c_literal(value: Any, dtype: str) -> str:
    """Return a number as a C literal of a dtype, which has exactly the number's value there."""
    c_type(dtype)
    if not is_float(dtype):
        return _integer_literal(int(value), dtype)
    with np.errstate(over="ignore", under="ignore"):
        number = np.dtype(dtype).type(value)
    if not math.isfinite(number):
        text = "NAN" if math.isnan(number) else "INFINITY"
    else:
        text = str(abs(number)) + ("f" if dtype == "float32" else "")
    return f"(-{text})" if math.copysign(1.0, number) < 0.0 else text


def c_literals(array: np.ndarray, dtype: str) -> list[str]:
    """Return the elements of an array, as `c_literal` does, but fast; for initial values only."""
    if not is_float(dtype) or not np.all(np.isfinite(array)):
        return [c_literal(number, dtype) for number in array.reshape(-1).tolist()]
    suffix = "f" if dtype == "float32" else ""
    # The text of NumPy's numbers is as short as their precision allows.
    return [str(number) + suffix for number in array.reshape(-1).astype(dtype)]


def _integer_literal(value: int, dtype: str) -> str:
    bits = _bits(dtype)
    suffix = ("u" if dtype.startswith("u") and bits >= 32 else "") + ("LL" if bits == 64 else "")
    if value < 0 and value == -(2 ** (bits - 1)) and bits >= 32:  # C has no negative literals.
        return f"(-{-(value + 1)}{suffix} - 1)"
    return f"{value}{suffix}" if value >= 0 else f"(-{-value}{suffix})"


def _bits(dtype: str) -> int:
    return 8 * np.dtype(dtype).itemsize


def operands_dtype(node: Node) -> str:
    """Return the dtype in which an elementwise node computes with its operands.

    Python numbers among the operands have this dtype; the condition of `where` is bool.
    """
    operands = node.operands[1:] if node.operation == "where" else node.operands
    if all(operand.operation == "number" for operand in operands):
        return node.dtype if node.operation == "where" else operands[0].dtype
    return common_dtype(node.operation, operands)


def c_expression(node: Node, operands: Sequence[str]) -> str:
    """Return the C expression of an elementwise node, or of a conversion.

    Parameters
    ----------
    node : Node
    operands : sequence of str
        The operands: names of variables of the operands' dtypes, or literals of
        `operands_dtype`.

    Raises
    ------
    UnprintableError
        If the primitive has no C expression for its dtype.
    """
    dtype = operands_dtype(node)
    kind = c_type(dtype)
    if node.operation == "astype":
        return _conversion(dtype, node.dtype, operands[0])
    expressions = _COMMON | _expressions_of(dtype)
    if node.operation not in ELEMENTWISE or node.operation not in expressions:
        raise UnprintableError(f"{node.operation} has no C expression for {dtype}")
    given = [
        name if x.operation == "number" or x.dtype == dtype else f"(({kind}){name})"
        for x, name in zip(node.operands, operands, strict=True)
    ]
    if node.operation == "where":
        given[0] = operands[0]
    return expressions[node.operation].format(
        **dict(zip("abc", given, strict=False)),
        T=kind,
        U="unsigned long long" if dtype.endswith("64") else "unsigned int",
        f="f" if dtype == "float32" else "",
        bits=_bits(dtype),
        log_2=c_literal(math.log(2.0), dtype),
    )


def _expressions_of(dtype: str) -> dict[str, str]:
    if is_float(dtype):
        return _FLOAT
    return _BOOL if dtype == "bool" else _UNSIGNED if dtype.startswith("u") else _INTEGER


def _conversion(given: str, dtype: str, x: str) -> str:
    """Return a conversion; numbers without an integer part in a dtype become the nearest there."""
    kind = c_type(dtype)
    if dtype == "bool":
        return f"({x} != 0)"
    if not is_float(given) or is_float(dtype):
        return f"(({kind}){x})"
    bounds = np.iinfo(dtype)
    low, high = (c_literal(int(bound), dtype) for bound in (bounds.min, bounds.max))
    below, beyond = (c_literal(float(n), given) for n in (bounds.min, int(bounds.max) + 1))
    return f"({x} != {x} ? 0 : {x} < {below} ? {low} : {x} >= {beyond} ? {high} : ({kind}){x})"


def print_node(
    node: Node,
    name_of: Callable[[Node], str],
    number: Callable[[Any, str], str] = c_literal,
) -> str:
    """Return the C expression of an elementwise node, given names of its operands' values.

    ``number(value, dtype)`` returns the text of a Python number among the operands.
    """
    operands = [
        number(x.settings[0], operands_dtype(node)) if x.operation == "number" else name_of(x)
        for x in node.operands
    ]
    return c_expression(node, operands)


def reduction_step(operation: str, total: str, x: str, *, dtype: str, of: str) -> str:
    """Return the C expression that adds an element to a reduction's result.

    ``dtype`` is the result's dtype, and ``of`` is the element's dtype.
    """
    pair = Node("input", (), (0,), (), dtype), Node("input", (), (1,), (), of)
    return c_expression(Node(_STEPS[operation], pair, (), (), dtype), [total, x])


def reduction_start(operation: str, dtype: str) -> str:
    """Return a reduction's result for no elements, or a number below or above all, as C."""
    if operation not in ("max", "min"):
        return c_literal(operation in ("prod", "all"), dtype)
    sign = -1 if operation == "max" else 1
    if is_float(dtype):
        return c_literal(sign * math.inf, dtype)
    bounds = np.iinfo(dtype)
    return c_literal(bounds.min if sign < 0 else bounds.max, dtype)
