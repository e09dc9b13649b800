"""The C statements of products, copies, and functions along an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from mlp_xp.compiler.array import is_float
from mlp_xp.compiler.c_expressions import c_type
from mlp_xp.compiler.c_loops import Loops, View
from mlp_xp.compiler.graph import Node

_TILE = 4  # The rows of a matrix that one loop over its columns reads.
_VECTOR = 16  # Bytes. At -O2, GCC vectorizes only loops over a multiple of a vector's elements.


class Writer(Protocol):
    """A statement's inputs: the arrays of its operands and result, and the list for its lines."""

    def read(self, node: Node) -> View:
        """Return the array of a node that has one."""

    def new(self, node: Node) -> View:
        """Return a new array for a node's result."""

    def store(self, node: Node, target: View) -> None:
        """Write the statement that computes or copies a node into an array."""

    def bias(self, node: Node) -> Node | None:
        """Return the constant that is added to a product, and to which its sums begin."""

    def add(self, lines: Sequence[str]) -> None:
        """Add lines of C."""


def indent(lines: Sequence[str]) -> list[str]:
    """Return lines within a block."""
    return [f"    {line}" for line in lines]


def _matmul(writer: Writer, node: Node) -> None:
    """Write a product; each inner loop adds a few rows of the right factor, times numbers."""
    a, b = map(writer.read, node.operands)
    *stack, n_rows, n_columns = node.shape
    depth = a.shape[-1]
    a = a.broadcast((*stack, n_rows, depth))
    b = b.broadcast((*stack, depth, n_columns))
    constant = writer.bias(node)
    bias = None if constant is None else writer.read(constant).broadcast(node.shape)
    target = writer.new(node)
    # Loop over matrices and rows; the right factor has no such rows.
    whole_b = b._replace(strides=(*b.strides[:-2], 0, b.strides[-1]))
    others = [target, a, whole_b, *([] if bias is None else [bias])]
    outer = Loops("s", node.shape, range(len(node.shape) - 1), others)
    columns = Loops("j", node.shape, [len(node.shape) - 1], [])
    y = target.at(outer, columns)
    lines = columns.around([f"{y} = {'0' if bias is None else bias.at(outer, columns)};"])
    # Processors multiply 16-bit vectors faster than 32-bit vectors.
    cast = "(short)" if _pairs_fit_16_bits(node) else ""

    def add_rows(start: int | str, n: int) -> list[str]:
        """Return the lines that add n rows of the right factor."""
        steps, first = ([], start) if isinstance(start, int) else ([start], 0)
        step_a, step_b = a.strides[-1], b.strides[-2]
        numbers = [
            a.at(outer, steps=[(i, step_a) for i in steps], shift=(first + i) * step_a)
            for i in range(n)
        ]
        row = whole_b.at(outer, steps=[(i, step_b) for i in steps], shift=first * step_b)
        # `w` has the stack's loops in its address already, and only the columns are left.
        w = View("w", node.dtype, node.shape, (*[0] * (len(node.shape) - 1), b.strides[-1]))
        terms = [f"r{i} * {w.at(columns, shift=i * step_b)}" for i in range(n)]
        pairs = [" + ".join(terms[i : i + 2]) for i in range(0, n, 2)]
        added = " + ".join(f"{cast}({pair})" for pair in pairs)
        return [
            *(f"const {c_type(a.dtype)} r{i} = {number};" for i, number in enumerate(numbers)),
            f"const {c_type(b.dtype)} *const w = &{row};",
            *_over_columns(n_columns, b.dtype, f"{y} += {added};"),
        ]

    n_tiled = depth - depth % _TILE
    if n_tiled > _TILE:
        lines += [f"for (int i = 0; i < {n_tiled}; i += {_TILE}) {{"]
        lines += [*indent(add_rows("i", _TILE)), "}"]
    elif n_tiled:
        lines += ["{", *indent(add_rows(0, _TILE)), "}"]
    if depth > n_tiled:
        lines += ["{", *indent(add_rows(n_tiled, depth - n_tiled)), "}"]
    writer.add(outer.around(lines))


def _pairs_fit_16_bits(node: Node) -> bool:
    """Whether the sum of two products of a matrix product's elements surely fits 16 bits."""
    a, b = node.operands
    is_int8 = a.dtype == b.dtype == "int8" and b.operation == "constant"
    return is_int8 and bool(np.all(np.asarray(b.value) > -128))  # 2 * 128 * 128 is too large.


def _over_columns(n: int, dtype: str, statement: str) -> list[str]:
    """Return the loop over columns, in two parts if a part is whole vectors of a dtype."""
    if n == 1:
        return [statement]
    whole = n - n % (_VECTOR // np.dtype(dtype).itemsize)
    bounds = [(0, n)] if whole in (0, n) else [(0, whole), (whole, n)]
    return [f"for (int j0 = {a}; j0 < {b}; ++j0) {statement}" for a, b in bounds]


def _concat(writer: Writer, node: Node) -> None:
    axis = node.settings[0]
    target = writer.new(node)
    start = 0
    for x in node.operands:
        offset = start * target.strides[axis]
        writer.store(x, target._replace(shape=x.shape, offset=offset))
        start += x.shape[axis]


def _take(writer: Writer, node: Node) -> None:
    x, positions = map(writer.read, node.operands)
    axis = node.settings[0]
    n = len(positions.shape)
    before, after = x.strides[:axis], x.strides[axis + 1 :]
    source = x._replace(shape=node.shape, strides=(*before, *[0] * n, *after))
    strides = (*[0] * axis, *positions.strides, *[0] * len(after))
    places = positions._replace(shape=node.shape, strides=strides)
    _gather(writer, node, source, places, x.shape[axis], x.strides[axis])


def _take_along(writer: Writer, node: Node) -> None:
    x, positions = map(writer.read, node.operands)
    axis = node.settings[0]
    wide = x.broadcast((*node.shape[:axis], x.shape[axis], *node.shape[axis + 1 :]))
    strides = (*wide.strides[:axis], 0, *wide.strides[axis + 1 :])
    source = wide._replace(shape=node.shape, strides=strides)
    places = positions.broadcast(node.shape)
    _gather(writer, node, source, places, x.shape[axis], x.strides[axis])


def _gather(
    writer: Writer, node: Node, source: View, places: View, length: int, stride: int
) -> None:
    """Write a copy of the entries at positions; positions outside become the nearest."""
    target = writer.new(node)
    loops = Loops("i", node.shape, range(len(node.shape)), [target, source, places])
    last = length - 1
    lines = [
        f"int p = (int){places.at(loops)};",
        f"p = p < 0 ? p + {length} : p;",
        f"p = p < 0 ? 0 : p > {last} ? {last} : p;",
        f"{target.at(loops)} = {source.at(loops, steps=[('p', stride)])};",
    ]
    writer.add(loops.around(lines))


def _along(
    writer: Writer, node: Node
) -> tuple[Callable[[str], str], Callable[[str], str], Loops, int]:
    """Return an element of the operand and of the result on an axis, and the loops around it."""
    (x,) = node.operands
    axis = node.settings[0]
    source, target = writer.read(x), writer.new(node)
    strides = list(target.strides)
    if len(node.shape) < len(x.shape):
        strides.insert(axis, 0)
    spread = target._replace(shape=x.shape, strides=tuple(strides))
    others = [i for i in range(len(x.shape)) if i != axis]
    outer = Loops("i", x.shape, others, [source, spread])

    def read(k: str) -> str:
        return source.at(outer, steps=[(k, source.strides[axis])])

    def written(k: str) -> str:
        return spread.at(outer, steps=[(k, strides[axis])])

    return read, written, outer, x.shape[axis]


def _position(writer: Writer, node: Node) -> None:
    """Write argmax or argmin: the first largest or smallest number, or the first NaN."""
    x, y, outer, n = _along(writer, node)
    dtype = node.operands[0].dtype
    sign = ">" if node.operation == "argmax" else "<"
    is_better = f"v == v && (u != u || u {sign} v)" if is_float(dtype) else f"u {sign} v"
    lines = [
        "int best = 0;",
        f"{c_type(dtype)} v = {x('best')};",
        f"for (int k = 1; k < {n}; ++k) {{",
        f"    const {c_type(dtype)} u = {x('k')};",
        f"    if ({is_better}) {{ best = k; v = u; }}",
        "}",
        f"{y('0')} = best;",
    ]
    writer.add(outer.around(lines))


def _cumulative_sum(writer: Writer, node: Node) -> None:
    x, y, outer, n = _along(writer, node)
    lines = [
        f"{c_type(node.dtype)} total = 0;",
        f"for (int k = 0; k < {n}; ++k) {{ total += {x('k')}; {y('k')} = total; }}",
    ]
    writer.add(outer.around(lines))


def _argsort(writer: Writer, node: Node) -> None:
    """Write a stable sort by insertion, with NaN at the end."""
    x, y, outer, n = _along(writer, node)
    dtype = node.operands[0].dtype
    sign = "<" if node.settings[1] else ">"
    is_later = f"u {sign} v || (u != u && v == v)" if is_float(dtype) else f"u {sign} v"
    lines = [
        f"for (int k = 0; k < {n}; ++k) {{",
        f"    const {c_type(dtype)} v = {x('k')};",
        "    int q = k;",
        "    for (; q > 0; --q) {",
        f"        const int before = (int){y('(q - 1)')};",
        f"        const {c_type(dtype)} u = {x('before')};",
        f"        if (!({is_later})) break;",
        f"        {y('q')} = before;",
        "    }",
        f"    {y('q')} = k;",
        "}",
    ]
    writer.add(outer.around(lines))


# The function that writes each primitive's statement, unless it is fused, a view or a reduction.
STATEMENTS: dict[str, Callable[[Writer, Node], None]] = {
    "matmul": _matmul,
    "concat": _concat,
    "take": _take,
    "take_along_axis": _take_along,
    "argmax": _position,
    "argmin": _position,
    "cumulative_sum": _cumulative_sum,
    "argsort": _argsort,
}
