"""Simplify graphs in which columns are joined and taken apart: compute the parts one by one.

A loop covers one grid, so an array that joins others would end it. Elementwise functions, sums and
slices of a joined array can be computed from its parts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise

from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.primitives import ELEMENTWISE

# The parts of an array, side by side along its last axis.
_Parts = tuple[Node, ...]


def split_joined(results: Sequence[Node], inputs: Collection[Node]) -> list[Node]:
    """Return equal results, in which arrays are joined as late as possible."""
    found: dict[Node, _Parts] = {}
    for node in in_order(results, inputs):
        if node in inputs or not node.operands:
            found[node] = (node,)
        else:
            operands = [found[x] for x in node.operands]
            found[node] = _split(node, operands) or (_rebuilt(node, operands),)
    return [_join(found[node]) for node in results]


def _width(node: Node) -> int:
    return node.shape[-1] if node.shape else 1


def _bounds(parts: _Parts) -> list[int]:
    """Return where each part begins, and where the last one ends."""
    return [0, *accumulate(map(_width, parts))]


def _join(parts: _Parts) -> Node:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    shape = (*first.shape[:-1], sum(map(_width, parts)))
    return Node("concat", parts, (len(shape) - 1,), shape, first.dtype)


def _rebuilt(node: Node, operands: Sequence[_Parts]) -> Node:
    joined = tuple(map(_join, operands))
    if joined == node.operands:
        return node
    return Node(node.operation, joined, node.settings, node.shape, node.dtype)


def _columns(node: Node, start: int, stop: int) -> Node:
    """Return some columns of a node."""
    if (start, stop) == (0, _width(node)):
        return node
    key = *((0, n, 1) for n in node.shape[:-1]), (start, stop, 1)
    return Node("index", (node,), key, (*node.shape[:-1], stop - start), node.dtype)


def _split(node: Node, operands: Sequence[_Parts]) -> _Parts | None:
    """Return the parts of a node, or None if it must be computed as a whole."""
    if node.operation == "concat" and node.settings == (len(node.shape) - 1,):
        is_alike = {part.dtype for parts in operands for part in parts} == {node.dtype}
        joined = [part for parts in operands for part in parts if _width(part)]
        return tuple(joined) if joined and is_alike else None
    parts = max(operands, key=len)
    if len(parts) == 1:
        return None
    bounds = _bounds(parts)
    if node.operation in ELEMENTWISE or node.operation == "astype":
        return _elementwise(node, operands, bounds)
    if node.operation == "index":
        return _sliced(node, parts, bounds)
    n_axes = len(node.operands[0].shape)
    if node.operation == "sum" and n_axes - 1 in node.settings[0]:
        sums = [Node("sum", (x,), node.settings, node.shape, node.dtype) for x in parts]
        total = sums[0]
        for term in sums[1:]:
            total = Node("add", (total, term), (), node.shape, node.dtype)
        return (total,)
    return None


def _elementwise(node: Node, operands: Sequence[_Parts], bounds: Sequence[int]) -> _Parts | None:
    whole = bounds[-1]
    if _width(node) != whole:
        return None
    found = []
    for start, stop in pairwise(bounds):
        given = []
        for parts in operands:
            own = _bounds(parts)
            if own[-1] == 1:  # It is broadcast along the columns.
                given.append(parts[0])
            elif len(parts) == 1:
                given.append(_columns(parts[0], start, stop))
            elif own == bounds:
                given.append(parts[bounds.index(start)])
            else:
                return None
        shape = (*node.shape[:-1], stop - start)
        found.append(Node(node.operation, tuple(given), node.settings, shape, node.dtype))
    return tuple(found)


def _sliced(node: Node, parts: _Parts, bounds: Sequence[int]) -> _Parts | None:
    """Return columns of a joined array, if these are columns of one part or several whole parts."""
    *rows, key = node.settings
    lengths = [(0, n, 1) for n in parts[0].shape[:-1]]
    if list(rows) != lengths or type(key) is not tuple or key[2] != 1:
        return None
    start, stop, _ = key
    for part, (low, high) in zip(parts, pairwise(bounds), strict=True):
        if low <= start and stop <= high:
            return (_columns(part, start - low, stop - low),)
    if start in bounds and stop in bounds:
        return parts[bounds.index(start) : bounds.index(stop)]
    return None
