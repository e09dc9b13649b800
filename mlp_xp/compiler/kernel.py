"""Kernels: what a loop computes for each element of arrays that are broadcast to one shape.

The nodes of a kernel are scalars: they have the shape (). So views are gone, and kernels for arrays
of other shapes are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlp_xp.compiler.graph import Node, in_order

# How a loop reads an array: all elements in row-major order, or one element per row, per column, or
# in total.
FULL, ROW, COLUMN, SCALAR = "full", "row", "column", "scalar"
# Memory layouts of views: one stride in the loop's order, or one stride per axis, where the column
# stride is 0, 1 element or any other.
EVERY, SPREAD, BLOCK, STRIDED = "every", "spread", "block", "strided"
VIEWS = (EVERY, SPREAD, BLOCK, STRIDED)
# The numbers in a vector of a loop.
LANES = 16
# The most operations of a loop. The time to compile grows faster than their
# number: 100 sines take 0.9 s, and 300 take 4 s.
MOST_OPERATIONS = 128
# These change only how elements are broadcast.
_VIEWS = ("broadcast_to", "reshape", "index", "sum")


class UnprintableError(Exception):
    """The error for a graph that is not elementwise, or a primitive without a CPU expression."""


class Kernel(NamedTuple):
    """The results of a loop, for each element.

    Attributes
    ----------
    inputs : tuple of Node
        Made by `input_node`.
    layouts : tuple of str
        Of each input, then of each result: `FULL`, `ROW`, `COLUMN`, `SCALAR`, or of `VIEWS`.
    results : tuple of Node
    overwritten : tuple of int
        Of each result: the position of the input over which it is written, or -1.
    total : Node or None
        What is summed over all elements, or over each row if ``sums_rows`` is true; or the "prod",
        "max" or "min" of what is accumulated.
    is_narrow : bool
        Whether rows have fewer than 2 `LANES` numbers, and are computed in masked vectors.
    """

    inputs: tuple[Node, ...]
    layouts: tuple[str, ...]
    results: tuple[Node, ...]
    overwritten: tuple[int, ...]
    total: Node | None = None
    sums_rows: bool = False
    is_narrow: bool = False

    @property
    def is_flat(self) -> bool:
        """Whether the loop needs no rows."""
        return not self.sums_rows and {*self.layouts} <= {FULL, SCALAR, EVERY}

    @property
    def wanted(self) -> list[Node]:
        """The results, and the total if there is one."""
        return [*self.results, *([] if self.total is None else [self.total])]

    @property
    def n_operations(self) -> int:
        """The number of operations for each element."""
        return sum(bool(node.operands) for node in in_order(self.wanted))


def input_node(position: int, dtype: str) -> Node:
    """Return the node of a kernel's input."""
    return Node("input", (), (position,), (), dtype)


def make_kernel(
    inputs: Sequence[Node],
    results: Sequence[Node],
    total: Node | None = None,
    *,
    in_place: int | None = None,
    sums_rows: bool = False,
) -> tuple[Kernel, tuple[int, int]]:
    """Return the kernel that computes results and the sum of ``total``, and its rows and columns.

    The only result may be written over the input at the position ``in_place``. Raise
    UnprintableError if the graph is not elementwise.
    """
    wanted = [*results, *([] if total is None else [total])]
    rows, columns = _grid(max((node.shape for node in wanted), key=math.prod))
    layouts = tuple(_layout(node.shape, rows, columns) for node in inputs)
    if any(_layout(node.shape, rows, columns) != FULL for node in wanted):
        raise UnprintableError("results have different shapes")
    scalars = {node: input_node(i, node.dtype) for i, node in enumerate(inputs)}
    given = tuple(scalars[node] for node in inputs)
    for node in in_order(wanted, inputs):
        if node not in scalars:
            scalars[node] = _scalar(node, scalars, rows, columns)
    kernel = Kernel(
        given,
        (*layouts, *[FULL] * len(results)),
        tuple(scalars[node] for node in results),
        tuple(-1 if in_place is None else in_place for _ in results),
        None if total is None else scalars[total],
        sums_rows,
    )
    return kernel, (rows, columns)


def replaced(results: Sequence[Node], others: Mapping[Node, Node]) -> list[Node]:
    """Return nodes after replacing some nodes, also where they are operands."""
    new = dict(others)
    for node in in_order(results, others):
        if node not in new:
            operands = tuple(new[operand] for operand in node.operands)
            new[node] = Node(node.operation, operands, node.settings, node.shape, node.dtype)
    return [new[node] for node in results]


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1] if shape else 1


def _layout(shape: tuple[int, ...], rows: int, columns: int) -> str:
    if math.prod(shape) == rows * columns:
        return FULL
    if math.prod(shape) == 1:
        return SCALAR
    n, k = _grid(shape)
    if (n, k) == (rows, 1):
        return ROW
    if (n, k) == (1, columns):
        return COLUMN
    raise UnprintableError(f"an operand has the shape {shape}")


def _scalar(node: Node, scalars: dict[Node, Node], rows: int, columns: int) -> Node:
    """Return the node for one element of a node's array."""
    name = node.operation
    if name == "number":
        return node
    if name == "constant" and math.prod(node.shape) == 1:
        return _number(node.value.reshape(-1)[0], node.dtype)
    if name == "constant":
        raise UnprintableError("it has an array")
    if name in _VIEWS:
        # Elements must stay in their order, so only axes of length 1 may come and go.
        (x,) = node.operands
        kept = [n for n in x.shape if n != 1] == [n for n in node.shape if n != 1]
        layouts = [_layout(shape, rows, columns) for shape in (x.shape, node.shape)]
        if name != "broadcast_to" and not (kept and layouts[0] == layouts[1]):
            raise UnprintableError(f"{name} moves elements")
        return scalars[x]
    _layout(node.shape, rows, columns)
    dtypes = [x.dtype for x in node.operands if x.operation != "number"]
    # Numbers have the dtype of the operands beside them.
    dtype = node.dtype if name == "where" else dtypes[0]
    operands = [scalars[x] for x in node.operands]
    operands = [_number(x.settings[0], dtype) if x.operation == "number" else x for x in operands]
    return Node(name, tuple(operands), (), (), node.dtype)


def _number(value: float, dtype: str) -> Node:
    kind = {"bool": bool, "int32": int, "int64": int}.get(dtype, float)
    return Node("number", (), (kind(value),), (), dtype)
