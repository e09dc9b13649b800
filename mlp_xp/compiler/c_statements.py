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
    """Write a product whose inner loop is along the rows or the columns of the right factor."""
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
    if b.strides[-2] == 1 < b.strides[-1]:
        lines = _add_columns(a, whole_b, bias, target, outer)
    else:
        lines = _add_rows(a, whole_b, b.strides[-2], bias, target, outer)
    writer.add(outer.around(lines))


def _in_tiles(n: int, index: str, tile: Callable[[int | str, int], list[str]]) -> list[str]:
    """Return the lines for n indices; ``tile`` returns the lines from an index, for a tile."""
    whole, lines = n - n % _TILE, list[str]()
    if whole > _TILE:
        lines += [f"for (int {index} = 0; {index} < {whole}; {index} += {_TILE}) {{"]
        lines += [*indent(tile(index, _TILE)), "}"]
    elif whole:
        lines += ["{", *indent(tile(0, _TILE)), "}"]
    if n > whole:
        lines += ["{", *indent(tile(whole, n - whole)), "}"]
    return lines


def _add_rows(
    a: View, b: View, step: int, bias: View | None, target: View, outer: Loops
) -> list[str]:
    """Return the lines that add a few rows of the right factor at once, times numbers."""
    columns = Loops("j", target.shape, [len(target.shape) - 1], [])
    y = target.at(outer, columns)

    def add(start: int | str, n: int) -> list[str]:
        numbers = [_at(a, outer, start, a.strides[-1], i) for i in range(n)]
        # `w` has the stack's loops in its address already, and only the columns are left.
        w = View("w", b.dtype, b.shape, (*[0] * (len(b.shape) - 1), b.strides[-1]))
        terms = [f"r{i} * {w.at(columns, shift=i * step)}" for i in range(n)]
        added = " + ".join(f"({' + '.join(terms[i : i + 2])})" for i in range(0, n, 2))
        return [
            *(f"const {c_type(a.dtype)} r{i} = {number};" for i, number in enumerate(numbers)),
            f"const {c_type(b.dtype)} *const w = &{_at(b, outer, start, step, 0)};",
            *_over(target.shape[-1], b.dtype, "j0", f"{y} += {added};"),
        ]

    first = columns.around([f"{y} = {'0' if bias is None else bias.at(outer, columns)};"])
    return [*first, *_in_tiles(a.shape[-1], "i", add)]


def _add_columns(a: View, b: View, bias: View | None, target: View, outer: Loops) -> list[str]:
    """Return the lines that compute a few columns at once, each in a variable.

    Compilers add integers in vectors. They may not change the order in which floats are added.
    """
    stride, kind = b.strides[-1], c_type(target.dtype)

    def add(start: int | str, n: int) -> list[str]:
        firsts = [
            "0" if bias is None else _at(bias, outer, start, bias.strides[-1], i) for i in range(n)
        ]
        r = a.at(outer, steps=[("k", a.strides[-1])])
        terms = [f"t{i} += r * w[k{f' + {i * stride}' if i else ''}];" for i in range(n)]
        added = " ".join(["{", f"const {c_type(a.dtype)} r = {r};", *terms, "}"])
        return [
            f"const {c_type(b.dtype)} *const w = &{_at(b, outer, start, stride, 0)};",
            *(f"{kind} t{i} = {first};" for i, first in enumerate(firsts)),
            *_over(a.shape[-1], b.dtype, "k", added),
            *(f"{_at(target, outer, start, target.strides[-1], i)} = t{i};" for i in range(n)),
        ]

    return _in_tiles(target.shape[-1], "j", add)


def _at(view: View, outer: Loops, start: int | str, stride: int, i: int) -> str:
    """Return an element of the outer loops' array: i after a start, in steps of a stride."""
    if isinstance(start, int):
        return view.at(outer, shift=(start + i) * stride)
    return view.at(outer, steps=[(start, stride)], shift=i * stride)


def _over(n: int, dtype: str, index: str, statement: str) -> list[str]:
    """Return a loop over n indices, in two parts if a part is whole vectors of a dtype."""
    whole = n - n % (_VECTOR // np.dtype(dtype).itemsize)
    bounds = [(0, n)] if whole in (0, n) else [(0, whole), (whole, n)]
    return [f"for (int {index} = {a}; {index} < {b}; ++{index}) {statement}" for a, b in bounds]


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
