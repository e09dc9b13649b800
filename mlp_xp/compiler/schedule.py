"""Schedules for a GPU: divide a graph into launches of fused loops, and operations of a library.

A fused loop covers a grid of rows and columns. Groups of threads share one line of it, which is a
row or a column, and reduce along it as often as needed. Sums over the whole grid end a launch,
since blocks of threads cannot wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from mlp_xp.compiler.c_expressions import C_TYPES, c_expression
from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.kernel import COLUMN, FULL, ROW, SCALAR, UnprintableError
from mlp_xp.compiler.primitives import ELEMENTWISE

# The reductions that a loop can compute along its lines.
REDUCTIONS = ("sum", "max", "min", "any", "all")


class MisfitError(Exception):
    """The error for a node that does not fit the grid of a launch."""


class Launch(NamedTuple):
    """A fused loop.

    Attributes
    ----------
    grid : Grid
    targets : tuple of Node
        What the loop computes, in order.
    needed : frozenset of Node
        The targets that are stored; others are used within the loop only.
    """

    grid: Grid
    targets: tuple[Node, ...]
    needed: frozenset[Node]


def is_view(node: Node) -> bool:
    """Whether a node has the elements of its operand in the same order, maybe repeated."""
    if node.operation == "broadcast_to":
        return True
    if node.operation == "index":  # Only new axes.
        lengths = iter(node.operands[0].shape)
        return all(key is None or (key == (0, next(lengths), 1)) for key in node.settings)
    return node.operation == "reshape"


def is_map(node: Node) -> bool:
    """Whether a loop can compute a node from the same element of its operands."""
    if node.dtype not in C_TYPES:
        return False
    if node.operation in ELEMENTWISE or node.operation == "astype":
        try:
            return bool(c_expression(node, ["x"] * len(node.operands)))
        except UnprintableError:
            return False
    return is_view(node)


def is_leaf(node: Node) -> bool:
    """Whether a node needs no computation."""
    return node.operation in ("input", "number", "constant")


def is_positions(node: Node) -> bool:
    """Whether a constant is 0, 1, 2, ..."""
    value = node.value
    return (
        node.operation == "constant"
        and isinstance(value, np.ndarray)
        and value.ndim == 1
        and value.dtype.kind in "iu"
        and np.array_equal(value, np.arange(value.size))
    )


def is_one_number(node: Node) -> bool:
    """Whether a node is a constant with one number, on the host."""
    return isinstance(node.value, np.ndarray) and node.value.size == 1


def is_printed(node: Node) -> bool:
    """Whether a constant is a part of the text of a kernel."""
    return is_positions(node) or is_one_number(node)


def computed_nodes(order: Sequence[Node]) -> list[Node]:
    """Return the nodes that are not elementwise: reductions and operations of a library."""
    return [node for node in order if not is_leaf(node) and not is_map(node)]


def schedule(results: Sequence[Node], inputs: Collection[Node]) -> list[Launch | Node]:
    """Return launches, and nodes to compute with a library, in order."""
    order = in_order(results, inputs)
    known = {*inputs, *filter(is_leaf, order)}
    computed = computed_nodes(order)
    # A library needs its operands in memory.
    given = {x for node in computed if is_by_library(node) for x in node.operands}
    kept = {*computed, *given, *results} - known
    pending = [node for node in order if node in kept]
    launches: list[Launch | Node] = []

    def is_ready(node: Node) -> bool:
        return is_by_library(node) and known.issuperset(node.operands)

    while pending:
        first = next(filter(is_ready, pending), pending[0])
        options = [] if is_by_library(first) else _options(pending, frozenset(known))
        grid, targets = max(options, key=lambda option: len(option[1]), default=(None, []))
        if grid is None or not targets:
            # A library computes only this node; loops may compute its operands.
            given.update(first.operands)
            found = [x for x in first.operands if x not in known]
            if found:
                kept.update(found)
                pending = [*dict.fromkeys(found), *pending]
                continue
            targets = [first]
            launches += targets
        else:
            rest = [node for node in pending if node not in targets]
            used = {x for node in rest for x in sources(node, kept, known)} | given | set(results)
            launches.append(Launch(grid, tuple(targets), frozenset(targets) & used))
        known.update(targets)
        pending = [node for node in pending if node not in known]
    return launches


def is_by_library(node: Node) -> bool:
    """Whether only a library can compute a node."""
    return not is_map(node) and node.operation not in REDUCTIONS


def sources(node: Node, kept: Collection[Node], known: Collection[Node]) -> set[Node]:
    """Return the kept nodes from which a loop computes a node elementwise.

    Operands of known nodes are not needed.
    """
    found: set[Node] = set()
    seen: set[Node] = set()
    pending = list(node.operands)
    while pending:
        x = pending.pop()
        if x in seen:
            continue
        seen.add(x)
        if x in kept:
            found.add(x)
        elif x not in known:
            pending += x.operands
    return found


def _options(pending: Sequence[Node], known: Collection[Node]) -> list[tuple[Grid, list[Node]]]:
    """Return launches that begin now: grids, and the pending nodes that each computes."""
    found = []
    by_loops = [node for node in pending if not is_by_library(node)]
    largest = max(by_loops, key=lambda node: math.prod(_covered(node)))
    for node in dict.fromkeys([largest, pending[0]]):
        for along in (ROW, COLUMN):
            shape = _covered(node)
            if len(shape) == 1 and not is_map(node):
                shape = (1, *shape) if along == ROW else (*shape, 1)
            grid = Grid(along, shape, known)
            found.append((grid, [x for x in pending if grid.add(x, pending)]))
    return found


def _covered(node: Node) -> tuple[int, ...]:
    """Return the shape over which a loop computes a node."""
    return node.shape if is_map(node) else node.operands[0].shape


class Grid:
    """The grid of a launch, and the layouts of nodes in it.

    Attributes
    ----------
    along : str
        `ROW` or `COLUMN`: what a group of threads shares.
    shape : tuple of int
        The shape of arrays that cover the grid.
    rows, columns : int
    known : collection of Node
        The nodes that were computed before.
    outer, inner : str
        The layouts of vectors with an entry for each line, and for each position along a line.
    local : dict of Node to str
        The layouts of the targets that the launch computes and can use.
    """

    def __init__(self, along: str, shape: tuple[int, ...], known: Collection[Node]) -> None:
        self.along, self.shape, self.known = along, shape, known
        self.rows, self.columns = math.prod(shape[:-1]), shape[-1] if shape else 1
        self.outer, self.inner = (ROW, COLUMN) if along == ROW else (COLUMN, ROW)
        self.local: dict[Node, str] = {}
        self._layouts: dict[tuple[Node, str], str] = {}

    def add(self, node: Node, pending: Collection[Node]) -> bool:
        """Add a target if the launch can compute it; return whether it does."""
        if is_by_library(node):
            return False
        if any(x not in self.local for x in sources(node, pending, self.known)):
            return False
        try:
            if is_map(node):
                layout = self.layout(node)
                if self.span(node) not in (FULL, SCALAR, self.outer) or layout == self.inner:
                    return False
                self.local[node] = layout
                return True
            kind = self.reduction(node)
        except MisfitError:
            return False
        if kind == FULL:  # Only the next launch can use it.
            return node.operation == "sum"
        self.local[node] = SCALAR if kind == SCALAR else self.outer
        return True

    def reduction(self, node: Node) -> str:
        """Return what a reduction reduces: the `inner` axis, the `FULL` grid, or a vector.

        `SCALAR` stands for a vector that each block of threads reduces by itself.
        """
        (x,), axes = node.operands, node.settings[0]
        self.layout(x)
        span, n = self.span(x), len(x.shape)
        if span == FULL and self.rows * self.columns > 1:
            axis = self._axis(axes, n)
            n_lines = self.rows if self.along == ROW else self.columns
            if axis == self.inner or (axis == FULL and n_lines == 1):
                return self.inner
            if axis == FULL:
                return FULL
            raise MisfitError
        if axes != tuple(range(n)):
            raise MisfitError
        if all(node not in self.local for node in in_order([x], self.local)):
            return SCALAR
        layout = self.layout(x)
        if layout == self.outer or (layout == SCALAR and span == self.outer):
            return FULL
        raise MisfitError  # Each line adds one element.

    def _axis(self, axes: tuple[int, ...], n: int) -> str:
        """Return which axis of the grid is reduced: `COLUMN`, `ROW`, or `FULL` for both."""
        if axes == tuple(range(n)):
            return FULL
        if axes == (n - 1,):
            return COLUMN
        if axes == tuple(range(n - 1)):
            return ROW
        raise MisfitError

    def span(self, node: Node, hint: str = "") -> str:
        """Return how a node's shape covers the grid; ``hint`` decides for vectors of a square."""
        shape, n = node.shape, math.prod(node.shape)
        is_rows = len(shape) == 1 or shape == self.shape[:-1]
        if node in self.local and self.local[node] == self.outer and is_rows:
            return self.outer
        if n == self.rows * self.columns and (len(shape) < 2 or shape[-1] == self.columns):
            return FULL
        if n == 1:
            return SCALAR
        of_rows, of_columns = n == self.rows, n == self.columns
        if len(shape) > 1:
            of_rows = of_rows and (shape[-1] == 1 or is_rows)
            of_columns = of_columns and shape[-1] == n
        if of_rows and of_columns:
            return hint or COLUMN
        if of_rows or of_columns:
            return ROW if of_rows else COLUMN
        raise MisfitError

    def layout(self, node: Node, hint: str = "") -> str:
        """Return which axes of the grid a node's elements depend on. Raise MisfitError."""
        if node in self.local:
            return self.local[node]
        key = node, hint
        if key not in self._layouts:
            self._layouts[key] = self._layout(node, hint)
        return self._layouts[key]

    def operands_hint(self, node: Node, hint: str) -> str:
        """Return the hint for the operands of an elementwise node or a view."""
        if _moves(node) and len(node.shape) > 1:
            return self.span(node)
        return hint if len(node.shape) == 1 else ""

    def _layout(self, node: Node, hint: str) -> str:
        if node.operation == "number" or (is_leaf(node) and math.prod(node.shape) == 1):
            return SCALAR
        if node in self.known:
            if node.dtype not in C_TYPES:
                raise MisfitError
            return self.span(node, hint)
        if not is_map(node):
            raise MisfitError
        span, found = self.span(node, hint), set[str]()
        for x in node.operands:
            layout = self.layout(x, self.operands_hint(node, hint))
            if layout == ROW and not _moves(node) and len(x.shape) < len(node.shape):
                raise MisfitError  # Arrays are broadcast along the last axis.
            found.add(layout)
        found.discard(SCALAR)
        layout = FULL if len(found) > 1 else found.pop() if found else SCALAR
        if span in (ROW, COLUMN) and layout not in (span, SCALAR):
            raise MisfitError  # A row vector became a column vector, as in a square matrix.
        return layout


def _moves(node: Node) -> bool:
    return node.operation in ("reshape", "index")
