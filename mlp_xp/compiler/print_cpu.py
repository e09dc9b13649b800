"""Print the loops of kernels in LLVM's intermediate language, for the CPU.

All mathematical functions are polynomials within the loop, so LLVM vectorizes it. One loop computes
several results of the same shape, and may sum another node over all elements. Operands have the
results' shape (rows, columns), or are broadcast along one or both axes; operands and results may
also be views, whose elements have any distances in memory.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from mlp_xp.compiler.cpu_expressions import find_expression, type_of
from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.instructions import Body
from mlp_xp.compiler.kernel import (
    BLOCK,
    COLUMN,
    EVERY,
    FULL,
    LANES,
    MOST_OPERATIONS,
    ROW,
    SPREAD,
    STRIDED,
    VIEWS,
    Kernel,
    UnprintableError,
)


class Loop(NamedTuple):
    """The text of a loop.

    The function ``name`` receives the address of a record of 64-bit integers: ``HEADER_WORDS``
    words for others, then the number of rows, of columns, of consecutive rows for which views have
    one stride, and of all elements, then the address of the views' strides, then the addresses of
    the inputs, of the results, and of the total if there is one. The last row of a loop that sums
    rows may be shorter. The strides, in bytes, are three for each input and result: of those groups
    of rows, of rows, and of columns. The function's other arguments are the number of the thread,
    and the number of threads that share the work.
    """

    name: str
    text: str


HEADER_WORDS = 5


# Maximum and minimum: the comparison, and the result for no numbers.
_EXTREMES = {"max": ("ogt", -math.inf), "min": ("olt", math.inf)}


@lru_cache(maxsize=1024)
def print_kernel(kernel: Kernel) -> Loop:
    """Return the loop of a kernel. Raise UnprintableError if a primitive has no CPU expression."""
    body = Body()
    values: dict[Node, str] = {}
    for i, node in enumerate(kernel.inputs):
        values[node] = _load(body, node, _element(body, node, i, kernel.layouts[i]))
    for node in in_order(kernel.wanted, kernel.inputs):
        if node not in values:
            values[node] = find_expression(node)(body, *(values[x] for x in node.operands))
    n_inputs = len(kernel.inputs)
    for i, (node, place) in enumerate(zip(kernel.results, kernel.overwritten, strict=True)):
        array = n_inputs + i if place < 0 else place
        _store(body, node, values[node], _element(body, node, array, kernel.layouts[array]))
    total = None if kernel.total is None else _accumulate(body, kernel.total, values[kernel.total])
    text = _function(body, kernel, total)
    name = f"formula_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    return Loop(name, text.replace("NAME", name))


def _stored_as(node: Node) -> str:
    return "i8" if node.dtype == "bool" else type_of(node.dtype).name


def _element(body: Body, node: Node, i: int, layout: str) -> str:
    """Return the address of an array's element."""
    if layout in (EVERY, STRIDED):
        array, at = (f"%a{i}", "%at") if layout == EVERY else (f"%p{i}", "%column")
        at = body.new(f"mul i64 {at}, %s{i}.2")
        return body.new(f"getelementptr i8, ptr {array}, i64 {at}")
    array = f"%p{i}" if layout in (SPREAD, BLOCK) else f"%a{i}"
    at = {FULL: "%at", ROW: "%row", COLUMN: "%column", BLOCK: "%column"}.get(layout, "0")
    return body.new(f"getelementptr {_stored_as(node)}, ptr {array}, i64 {at}")


def _load(body: Body, node: Node, place: str) -> str:
    value = body.new(f"load {_stored_as(node)}, ptr {place}")
    return body.new(f"icmp ne i8 {value}, 0") if node.dtype == "bool" else value


def _store(body: Body, node: Node, value: str, place: str) -> None:
    if node.dtype == "bool":
        value = body.new(f"zext i1 {value} to i8")
    body.lines.append(f"  store {_stored_as(node)} {value}, ptr {place}")


class _Total(NamedTuple):
    """A loop's accumulator ``%sum``: its type, initial value and instruction."""

    kind: str
    start: str
    instruction: str
    is_sum: bool


def _accumulate(body: Body, node: Node, value: str) -> _Total:
    body.type = type_of(node.dtype)
    kind = body.type.name
    if kind == body.type.integer:
        return _Total(kind, "0", f"add {kind} %sum, {value}", is_sum=True)
    if node.operation == "prod":
        return _Total(kind, body.number(1.0), f"fmul reassoc {kind} %sum, {value}", is_sum=True)
    if node.operation not in _EXTREMES:
        return _Total(kind, "0.0", f"fadd reassoc {kind} %sum, {value}", is_sum=True)
    how, start = _EXTREMES[node.operation]
    found = body.extreme(how, "%sum", value)
    return _Total(kind, body.number(start), f"bitcast {kind} {found} to {kind}", is_sum=False)


def check_printable(kernel: Kernel) -> None:
    """Raise UnprintableError if a loop is too long, or lacks a dtype or a primitive."""
    if kernel.n_operations > MOST_OPERATIONS:
        raise UnprintableError("the loop is too long")
    for node in in_order(kernel.wanted, kernel.inputs):
        find_expression(node)


def _hints(is_sum: bool, is_narrow: bool) -> list[str]:
    """Return how LLVM should vectorize the inner loop.

    A sum has the same order of terms, and so the same bits, whatever else its loop computes.
    """
    hints = []
    if is_sum:
        hints += [f'vectorize.width", i32 {LANES}', f'interleave.count", i32 {2 - is_narrow}']
    if is_narrow:
        hints.append('vectorize.predicate.enable", i1 true')
    names = [f"!{i}" for i in range(len(hints) + 1)]
    nodes = [
        f'{name} = !{{!"llvm.loop.{hint}}}' for name, hint in zip(names[1:], hints, strict=True)
    ]
    return [f"!0 = distinct !{{{', '.join(names)}}}", *nodes] if hints else []


# A function that reads the record, and the loop; lines that a loop does not need are empty.
_MODULE = """\
{declared}
define internal void @loop({parameters}, {settings}) {{
entry:
{strides}
  %some.rows = icmp slt i64 %low, %high
  %some.columns = icmp sgt i64 %n_columns, 0
  %some = and i1 %some.rows, %some.columns
  %first = add i64 {first}, 0
  br i1 %some, label %outer, label %end
outer:
  %row = phi i64 [ %first, %entry ], [ %next.row, %after ]
{row_sum}
  %base = mul i64 %row, %n_columns
{bound}
{starts}
  br label %inner
inner:
  %column = phi i64 [ {start}, %outer ], [ %next.column, %inner ]
{sum}
  %at = add i64 %base, %column
{body}
{next_sum}
  %next.column = add i64 %column, 1
  %more = icmp slt i64 %next.column, {limit}
  br i1 %more, label %inner, label %after{hint}
after:
{store_row_sum}
  %next.row = add i64 %row, 1
  %more.rows = icmp slt i64 %next.row, {last}
  br i1 %more.rows, label %outer, label %end
end:
{store_sum}
  ret void
}}
define void @NAME(i64 %address, i64 %thread, i64 %n_threads, i64 %scratch) {{
  %record = inttoptr i64 %address to ptr
{read}
{low}
  %next.thread = add i64 %thread, 1
{high}
  call void @loop({arguments}, {settings})
  ret void
}}
{hints}
{kept}
"""
_BOUND = """\
  %left = sub i64 %size, %base
  %is.short = icmp slt i64 %left, %n_columns
  %bound = select i1 %is.short, i64 %left, i64 %n_columns"""


def _function(body: Body, kernel: Kernel, total: _Total | None) -> str:
    """Return the module of a loop."""
    is_flat, sums_rows = kernel.is_flat, kernel.sums_rows
    names = ["%strides", *(f"%a{i}" for i in range(len(kernel.layouts)))]
    names += [] if total is None else ["%total"]
    fields = ["%n_rows", "%n_columns", "%n_inner", "%size", *(f"{name}.word" for name in names)]
    read = [
        f"  {field}.place = getelementptr i64, ptr %record, i64 {HEADER_WORDS + i}\n"
        f"  {field} = load i64, ptr {field}.place"
        for i, field in enumerate(fields)
    ]
    read += [f"  {name} = inttoptr i64 {name}.word to ptr" for name in names]
    strides, starts = _views(kernel.layouts)
    length, multiple = ("%n_columns", 16) if is_flat else ("%n_rows", 1)
    hints = _hints(total is not None and total.is_sum, kernel.is_narrow)
    parts: dict[str, Any] = {
        "parameters": ", ".join(f"ptr noalias {name}" for name in names),
        "arguments": ", ".join(f"ptr {name}" for name in names),
        "settings": "i64 %low, i64 %high, i64 %n_columns, i64 %n_inner, i64 %size",
        "first": "0" if is_flat else "%low",
        "last": "1" if is_flat else "%high",
        "start": "%low" if is_flat else "0",
        "limit": "%high" if is_flat else "%bound" if sums_rows else "%n_columns",
        "bound": _BOUND if sums_rows else "",
        "hint": ", !llvm.loop !0" if hints else "",
        **dict.fromkeys(("row_sum", "sum", "next_sum", "store_row_sum", "store_sum"), ""),
    }
    if total is not None:
        kind, zero, add, _ = total
        carried = zero if sums_rows else "%sum.next"
        parts["row_sum"] = f"  %sum.row = phi {kind} [ {zero}, %entry ], [ {carried}, %after ]"
        parts["sum"] = f"  %sum = phi {kind} [ %sum.row, %outer ], [ %sum.next, %inner ]"
        parts["next_sum"] = f"  %sum.next = {add}"
        if sums_rows:
            parts["store_row_sum"] = (
                f"  %place = getelementptr {kind}, ptr %total, i64 %row\n"
                f"  store {kind} %sum.next, ptr %place"
            )
        else:
            parts["store_sum"] = (
                f"  %sum.all = phi {kind} [ {zero}, %entry ], [ %sum.next, %after ]\n"
                f"  store {kind} %sum.all, ptr %total"
            )
    lists = {
        "declared": sorted(body.declared),
        "strides": strides,
        "starts": starts,
        "body": body.lines,
        "read": read,
        "low": _start("%thread", "%low", length, multiple),
        "high": _start("%next.thread", "%high", length, multiple),
        "hints": hints,
        "kept": _kept(body.vectors),
    }
    text = _MODULE.format(**parts, **{name: "\n".join(lines) for name, lines in lists.items()})
    return "\n".join(filter(None, text.split("\n")))


def _kept(functions: set[str]) -> list[str]:
    """Return the instruction to keep functions that nothing calls yet, if there are any."""
    names = ", ".join(f"ptr @{name}" for name in sorted(functions))
    kept = f'[{len(functions)} x ptr] [{names}], section "llvm.metadata"'
    return [f"@llvm.compiler.used = appending global {kept}"] if functions else []


def _views(layouts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the instructions that read the strides of views, and that find their rows' starts."""
    strides = [
        line
        for i, layout in enumerate(layouts)
        for axis in range(3)
        for line in (
            f"  %s{i}.{axis}.place = getelementptr i64, ptr %strides, i64 {3 * i + axis}",
            f"  %s{i}.{axis} = load i64, ptr %s{i}.{axis}.place",
        )
        if layout in VIEWS
    ]
    starts = [
        line
        for i, layout in enumerate(layouts)
        for line in (
            f"  %p{i}.outer = mul i64 %row.outer, %s{i}.0",
            f"  %p{i}.inner = mul i64 %row.inner, %s{i}.1",
            f"  %p{i}.start = add i64 %p{i}.outer, %p{i}.inner",
            f"  %p{i} = getelementptr i8, ptr %a{i}, i64 %p{i}.start",
        )
        if layout in VIEWS and layout != EVERY
    ]
    if starts:
        starts.insert(0, "  %row.outer = udiv i64 %row, %n_inner")
        starts.insert(1, "  %row.inner = urem i64 %row, %n_inner")
    return strides, starts


def _start(thread: str, result: str, length: str, multiple: int) -> list[str]:
    """Return the instructions for where a thread's part starts: at a multiple of a number."""
    return [
        f"  {result}.product = mul i64 {length}, {thread}",
        f"  {result}.quotient = sdiv i64 {result}.product, %n_threads",
        f"  {result}.vectors = sdiv i64 {result}.quotient, {multiple}",
        f"  {result}.start = mul i64 {result}.vectors, {multiple}",
        f"  {result}.is.last = icmp eq i64 {thread}, %n_threads",
        f"  {result} = select i1 {result}.is.last, i64 {length}, i64 {result}.start",
    ]
