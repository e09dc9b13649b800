"""The CPU expression of each primitive: a function that adds its instructions to a loop's body."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from mlp_xp.compiler import elementary
from mlp_xp.compiler.graph import Node
from mlp_xp.compiler.instructions import TYPES, Body, Type
from mlp_xp.compiler.kernel import UnprintableError

# Expressions for floating-point operands.
EXPRESSIONS: dict[str, Callable[..., str]] = {
    "negative": Body.negative,
    "abs": lambda b, x: b.call("fabs", x),
    "exp": elementary.exp,
    "expm1": elementary.expm1,
    "log": elementary.log,
    "log1p": elementary.log1p,
    "log2": lambda b, x: elementary.log(b, x, 2.0),
    "log10": lambda b, x: elementary.log(b, x, 10.0),
    "logaddexp": elementary.logaddexp,
    "sqrt": lambda b, x: b.call("sqrt", x),
    "sin": elementary.sine,
    "cos": lambda b, x: elementary.sine(b, x, "cos"),
    "tan": lambda b, x: b.divide(elementary.sine(b, x), elementary.sine(b, x, "cos")),
    "sinh": elementary.sinh,
    "cosh": elementary.cosh,
    "tanh": elementary.tanh,
    "asin": elementary.asin,
    "acos": elementary.acos,
    "atan": elementary.atan,
    "asinh": elementary.asinh,
    "acosh": elementary.acosh,
    "atanh": elementary.atanh,
    "pow": elementary.power,
    "atan2": elementary.atan2,
    "hypot": elementary.hypot,
    "remainder": elementary.remainder,
    "floor_divide": elementary.floor_divide,
    "reciprocal": lambda b, x: b.divide(b.number(1.0), x),
    "sign": elementary.sign,
    "floor": lambda b, x: b.call("floor", x),
    "ceil": lambda b, x: b.call("ceil", x),
    "trunc": lambda b, x: b.call("trunc", x),
    "round": lambda b, x: b.call("roundeven", x),
    "copysign": lambda b, x, y: b.call("copysign", x, y),
    "add": Body.add,
    "subtract": Body.subtract,
    "multiply": Body.multiply,
    "divide": Body.divide,
    "maximum": lambda b, x, y: b.extreme("ogt", x, y),
    "minimum": lambda b, x, y: b.extreme("olt", x, y),
    "isnan": lambda b, x: b.compare("uno", x, x),
    "isinf": lambda b, x: b.compare("oeq", b.call("fabs", x), b.number(math.inf)),
    "isfinite": lambda b, x: b.compare("olt", b.call("fabs", x), b.number(math.inf)),
    "less": lambda b, x, y: b.compare("olt", x, y),
    "less_equal": lambda b, x, y: b.compare("ole", x, y),
    "greater": lambda b, x, y: b.compare("ogt", x, y),
    "greater_equal": lambda b, x, y: b.compare("oge", x, y),
    "equal": lambda b, x, y: b.compare("oeq", x, y),
    "not_equal": lambda b, x, y: b.compare("une", x, y),
    "where": Body.select,
}
# Expressions for truth values.
LOGICAL: dict[str, Callable[..., str]] = {
    "logical_not": lambda b, x: b.new(f"xor i1 {x}, true"),
    "logical_and": lambda b, x, y: b.new(f"and i1 {x}, {y}"),
    "logical_or": lambda b, x, y: b.new(f"or i1 {x}, {y}"),
    "logical_xor": lambda b, x, y: b.new(f"xor i1 {x}, {y}"),
    "where": lambda b, c, x, y: b.new(f"select i1 {c}, i1 {x}, i1 {y}"),
    "equal": lambda b, x, y: b.new(f"icmp eq i1 {x}, {y}"),
    "not_equal": lambda b, x, y: b.new(f"icmp ne i1 {x}, {y}"),
}
# Instructions for integers; products wrap around.
_INTEGERS = {
    **{"add": "add", "subtract": "sub", "multiply": "mul", "bitwise_and": "and"},
    **{"bitwise_or": "or", "bitwise_xor": "xor"},
    **{"bitwise_left_shift": "shl", "bitwise_right_shift": "ashr"},
}
_COMPARISONS = {
    **{"less": "slt", "less_equal": "sle", "greater": "sgt", "greater_equal": "sge"},
    **{"equal": "eq", "not_equal": "ne"},
}
INTEGER: dict[str, Callable[..., str]] = {
    name: lambda b, x, y, how=how: b.integer(how, x, y) for name, how in _INTEGERS.items()
} | {
    name: lambda b, x, y, how=how: b.new(f"icmp {how} {b.type.name} {x}, {y}")
    for name, how in _COMPARISONS.items()
}
INTEGER |= {
    "where": Body.select,
    "negative": lambda b, x: b.integer("sub", 0, x),
    "maximum": lambda b, x, y: b.select(INTEGER["greater"](b, x, y), x, y),
    "minimum": lambda b, x, y: b.select(INTEGER["less"](b, x, y), x, y),
    "abs": lambda b, x: INTEGER["maximum"](b, x, INTEGER["negative"](b, x)),
}
# Expressions by dtype; uint8 can only be converted.
_TABLES: dict[str, dict[str, Callable[..., str]]] = {
    **{"float32": EXPRESSIONS, "float64": EXPRESSIONS, "bool": LOGICAL},
    **{"int32": INTEGER, "int64": INTEGER, "uint8": {}},
}


def type_of(dtype: str) -> Type:
    """Return the LLVM type for a dtype; raise UnprintableError if there is none."""
    if dtype not in TYPES:
        raise UnprintableError(f"there are no loops for {dtype}")
    return TYPES[dtype]


def _unchanged(body: Body, x: str) -> str:
    return x


def find_expression(node: Node) -> Callable[..., str]:
    """Return the function that prints a node, given the body and its operands.

    Raise UnprintableError if there is none.
    """
    name, dtype = node.operation, node.dtype
    given = [x.dtype for x in node.operands][name == "where" :]  # Without the condition.
    computed_in = given[0] if given and name != "astype" else dtype
    for known in {dtype, computed_in} - {"bool"}:
        type_of(known)
    found: Callable[..., str] | None
    if not given:  # A number; inputs are loaded.
        found = partial(Body.number, value=node.settings[0])
    elif name in ("max", "min", "prod") or (name == "astype" and given == [dtype]):
        found = _unchanged
    elif name == "astype" and dtype not in ("bool", "uint8"):
        found = partial(Body.convert, dtype=given[0])
    else:
        table = _TABLES[computed_in]
        is_known = {*given} == {computed_in} and (
            name != "where" or node.operands[0].dtype == "bool"
        )
        found = table.get(name) if is_known else None
    if found is None:
        raise UnprintableError(f"{name} has no CPU expression for {computed_in}")

    def print_node(b: Body, *operands: str) -> str:
        b.type = TYPES.get(computed_in, b.type)
        return found(b, *operands)

    return print_node
