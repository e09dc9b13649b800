"""The parameters of a CUDA kernel, and the lines that compute one element of its arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from mlp_xp.compiler.c_expressions import C_TYPES, c_literal, print_node
from mlp_xp.compiler.graph import Node
from mlp_xp.compiler.schedule import Grid, is_one_number, is_view


class Parameter(NamedTuple):
    """A parameter of a kernel.

    ``kind`` is "array", "result" or "parts" (sums of blocks), each with a node; "number", with a
    dtype; "stride" of the rows of an array; or "rows" or "columns". ``value`` is a number in
    hexadecimal, which tells -0.0 from 0.0, or an array's layout if kernels need it.
    """

    kind: str
    node: Node | None = None
    value: str = ""
    dtype: str = ""

    @property
    def number(self) -> Any:
        """The number in its dtype."""
        return np.dtype(self.dtype).type(float.fromhex(self.value))


class Parameters:
    """The parameters of a kernel, each with a declaration and a name."""

    def __init__(self) -> None:
        self.names: dict[Parameter, str] = {}
        self.declared: list[str] = []

    def add(self, kind: str, node: Node | None = None, value: str = "", dtype: str = "") -> str:
        """Return the name of a parameter, which is added if it is new."""
        parameter = Parameter(kind, node, value, dtype)
        if parameter in self.names:
            return self.names[parameter]
        name = kind if kind in ("rows", "columns") else f"{kind}_{len(self.names)}"
        if kind == "array":
            assert node is not None
            declared = f"const {C_TYPES[node.dtype]}* {name}"
        elif kind in ("result", "parts"):
            assert node is not None
            declared = f"{C_TYPES[node.dtype]}* {name}"
        elif kind == "number":
            declared = f"{C_TYPES[dtype]} {name}"
        else:
            declared = f"long long {name}"
        self.names[parameter] = name
        self.declared.append(declared)
        return name

    def number(self, value: Any, dtype: str) -> str:
        """Return a number: a parameter if it is floating-point, else a literal."""
        if dtype in ("float32", "float64"):
            return self.add("number", value=float(value).hex(), dtype=dtype)
        return c_literal(value, dtype)


def constant(node: Node, parameters: Parameters) -> str | None:
    """Return a constant with one number on the host; None for other nodes."""
    if is_one_number(node):
        return parameters.number(node.value.reshape(-1)[0], node.dtype)
    return None


def expression(node: Node, name_of: Callable[[Node], str], parameters: Parameters) -> str:
    """Return the C expression of an elementwise node or a view."""
    if is_view(node):
        return name_of(node.operands[0])
    return print_node(node, name_of, parameters.number)


def print_element(
    wanted: Sequence[Node],
    load: Callable[[Node, str], str | None],
    parameters: Parameters,
    grid: Grid | None = None,
    *,
    prefix: str = "v",
) -> tuple[list[str], list[str]]:
    """Return the lines that compute some nodes for one element, and the names of their values.

    ``load(node, hint)`` returns the expression of a node that is known, or None. The grid, if
    given, has the hints. New names begin with the prefix.
    """
    lines = list[str]()
    names: dict[tuple[Node, str], str] = {}

    def value(node: Node, hint: str) -> str:
        if (node, hint) not in names:
            found = constant(node, parameters) or load(node, hint)
            if found is None:
                below = "" if grid is None else grid.operands_hint(node, hint)
                text = expression(node, partial(value, hint=below), parameters)
                found = f"{prefix}{len(lines)}"
                lines.append(f"const {C_TYPES[node.dtype]} {found} = {text};")
            names[node, hint] = found
        return names[node, hint]

    def hint_of(node: Node) -> str:
        return grid.span(node) if grid is not None and len(node.shape) == 1 else ""

    return lines, [value(node, hint_of(node)) for node in wanted]
