"""Print the loops of kernels in LLVM's intermediate language, for the CPU.

All mathematical functions are polynomials within the loop, so LLVM vectorizes it. One loop computes
several results of the same shape, and may sum another node over all elements. Operands have the
results' shape (rows, columns), or are broadcast along one or both axes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from mlp_xp.compiler.elementary import EXPRESSIONS, INTEGER, LOGICAL
from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.instructions import TYPES, Body, Type
from mlp_xp.compiler.kernel import COLUMN, FULL, ROW, SCALAR, Kernel, UnprintableError


class Loop(NamedTuple):
    """The text of a loop.

    The function ``name`` receives the address of a record of 64-bit integers: ``HEADER_WORDS``
    words for others, then the number of rows, of columns and of all elements, then the addresses of
    the inputs, of the results, and of the total if there is one. The last row of a loop that sums
    rows may be shorter. Its other arguments are the number of the thread,
    and the number of threads that share the work.
    """

    name: str
    text: str


HEADER_WORDS = 5


@lru_cache(maxsize=1024)
def print_kernel(kernel: Kernel) -> Loop:
    """Return the loop of a kernel. Raise UnprintableError if a primitive has no CPU expression."""
    body = Body()
    values: dict[Node, str] = {}
    for i, (node, layout) in enumerate(zip(kernel.inputs, kernel.layouts, strict=True)):
        at = {FULL: "%at", ROW: "%row", COLUMN: "%column", SCALAR: "0"}[layout]
        values[node] = _load(body, node, f"%a{i}", at)
    for node in in_order(kernel.wanted, kernel.inputs):
        if node not in values:
            values[node] = _print(body, node, [values[x] for x in node.operands])
    n_inputs = len(kernel.inputs)
    for i, (node, place) in enumerate(zip(kernel.results, kernel.overwritten, strict=True)):
        _store(body, node, values[node], f"%a{n_inputs + i if place < 0 else place}")
    total = None if kernel.total is None else values[kernel.total]
    kind = "" if kernel.total is None else _type_of(kernel.total.dtype).name
    n_arrays = n_inputs + len(kernel.results)
    text = _function(body, n_arrays, total, kind, kernel.is_flat, kernel.sums_rows)
    name = f"formula_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    return Loop(name, text.replace("NAME", name))


def _type_of(dtype: str) -> Type:
    if dtype not in TYPES:
        raise UnprintableError(f"there are no loops for {dtype}")
    return TYPES[dtype]


def _load(body: Body, node: Node, array: str, at: str) -> str:
    if node.dtype == "bool":
        place = body.new(f"getelementptr i8, ptr {array}, i64 {at}")
        return body.new(f"icmp ne i8 {body.new(f'load i8, ptr {place}')}, 0")
    kind = _type_of(node.dtype).name
    return body.new(f"load {kind}, ptr {body.new(f'getelementptr {kind}, ptr {array}, i64 {at}')}")


def _store(body: Body, node: Node, value: str, array: str) -> None:
    if node.dtype == "bool":
        kind, value = "i8", body.new(f"zext i1 {value} to i8")
    else:
        kind = _type_of(node.dtype).name
    place = body.new(f"getelementptr {kind}, ptr {array}, i64 %at")
    body.lines.append(f"  store {kind} {value}, ptr {place}")


def _print(body: Body, node: Node, operands: Sequence[str]) -> str:
    is_conversion = node.operation in ("number", "where", "astype")
    dtype = node.dtype if is_conversion else node.operands[0].dtype
    body.type = TYPES.get(dtype, body.type)
    return _expression(node)(body, *operands)


def check_printable(kernel: Kernel) -> None:
    """Raise UnprintableError if a dtype has no loops, or a primitive no CPU expression."""
    for node in in_order(kernel.wanted, kernel.inputs):
        _expression(node)


def _expression(node: Node) -> Callable[..., str]:
    """Return the function that prints a node, given the body and its operands."""
    name, dtype = node.operation, node.dtype
    kind = dtype if dtype == "bool" else _type_of(dtype)
    if name == "input":
        return lambda body: ""
    if name == "number":
        (value,) = node.settings
        return lambda body: str(value).lower() if dtype == "bool" else body.number(value)
    of_operands = node.dtype if name == "where" else node.operands[0].dtype
    if of_operands == "bool":
        if name in LOGICAL:
            return LOGICAL[name]
        if name == "astype" and kind != "bool":
            return lambda body, x: body.select(x, body.number(1.0), body.number(0.0))
    elif name == "where":
        if [x.dtype for x in node.operands] == ["bool", dtype, dtype]:
            return Body.select
    elif name == "astype" and of_operands == dtype:
        return lambda body, x: x
    else:
        expressions = INTEGER if of_operands == "int32" else EXPRESSIONS
        if name in expressions and {x.dtype for x in node.operands} == {of_operands}:
            return expressions[name]
    raise UnprintableError(f"{name} has no CPU expression for {of_operands}")


# A sum has the same order of terms, and so the same bits, whatever else its loop computes.
_LANES = [
    "!0 = distinct !{!0, !1, !2}",
    '!1 = !{!"llvm.loop.vectorize.width", i32 16}',
    '!2 = !{!"llvm.loop.interleave.count", i32 2}',
]


def _function(
    body: Body, n_arrays: int, total: str | None, kind: str, is_flat: bool, sums_rows: bool
) -> str:
    """Return the module: a function that reads the record, and the loop.

    ``kind`` is the type of the total.
    """
    n_words = HEADER_WORDS
    names = [f"%a{i}" for i in range(n_arrays)] + ([] if total is None else ["%total"])
    fields = ["%n_rows", "%n_columns", "%size", *(f"{name}.word" for name in names)]
    read = []
    for i, field in enumerate(fields):
        read.append(f"  {field}.place = getelementptr i64, ptr %record, i64 {n_words + i}")
        read.append(f"  {field} = load i64, ptr {field}.place")
    read += [f"  {name} = inttoptr i64 {name}.word to ptr" for name in names]
    parameters = ", ".join(f"ptr noalias {name}" for name in names)
    arguments = ", ".join(f"ptr {name}" for name in names)
    settings = "i64 %low, i64 %high, i64 %n_columns, i64 %size"
    length, multiple = ("%n_columns", 16) if is_flat else ("%n_rows", 1)
    bound = "%high" if is_flat else "%bound" if sums_rows else "%n_columns"
    start = "%low" if is_flat else "0"
    add = f"fadd reassoc {kind} %sum, {total}"
    zero = "0.0"
    carried = zero if sums_rows else "%sum.next"
    inner = [
        "inner:",
        f"  %column = phi i64 [ {start}, %outer ], [ %next.column, %inner ]",
        *(
            []
            if total is None
            else [f"  %sum = phi {kind} [ %sum.row, %outer ], [ %sum.next, %inner ]"]
        ),
        "  %at = add i64 %base, %column",
        *body.lines,
        *([] if total is None else [f"  %sum.next = {add}"]),
        "  %next.column = add i64 %column, 1",
        f"  %more = icmp slt i64 %next.column, {bound}",
        f"  br i1 %more, label %inner, label %after{'' if total is None else ', !llvm.loop !0'}",
    ]
    limit = [
        "  %left = sub i64 %size, %base",
        "  %is.short = icmp slt i64 %left, %n_columns",
        "  %bound = select i1 %is.short, i64 %left, i64 %n_columns",
    ]
    outer = [
        "outer:",
        "  %row = phi i64 [ %first, %entry ], [ %next.row, %after ]",
        *(
            []
            if total is None
            else [f"  %sum.row = phi {kind} [ {zero}, %entry ], [ {carried}, %after ]"]
        ),
        "  %base = mul i64 %row, %n_columns",
        *(limit if sums_rows else []),
        "  br label %inner",
    ]
    last = "1" if is_flat else "%high"
    store = [
        f"  %place = getelementptr {kind}, ptr %total, i64 %row",
        f"  store {kind} %sum.next, ptr %place",
    ]
    after = [
        "after:",
        *(store if sums_rows else []),
        "  %next.row = add i64 %row, 1",
        f"  %more.rows = icmp slt i64 %next.row, {last}",
        "  br i1 %more.rows, label %outer, label %end",
    ]
    end = ["end:"]
    if total is not None and not sums_rows:
        end.append(f"  %sum.all = phi {kind} [ {zero}, %entry ], [ %sum.next, %after ]")
        end.append(f"  store {kind} %sum.all, ptr %total")
    first = "0" if is_flat else "%low"
    some = [
        "  %some.rows = icmp slt i64 %low, %high",
        "  %some.columns = icmp sgt i64 %n_columns, 0",
    ]
    return "\n".join([
        *sorted(body.declared),
        f"define internal void @loop({parameters}, {settings}) {{",
        "entry:",
        *some,
        "  %some = and i1 %some.rows, %some.columns",
        f"  %first = add i64 {first}, 0",
        "  br i1 %some, label %outer, label %end",
        *outer, *inner, *after, *end,
        "  ret void",
        "}",
        "define void @NAME(i64 %address, i64 %thread, i64 %n_threads, i64 %scratch) {",
        "  %record = inttoptr i64 %address to ptr",
        *read,
        *_start("%thread", "%low", length, multiple),
        "  %next.thread = add i64 %thread, 1",
        *_start("%next.thread", "%high", length, multiple),
        f"  call void @loop({arguments}, {settings})",
        "  ret void",
        "}",
        *([] if total is None else _LANES),
        *_kept(body.vectors),
    ])  # fmt: skip


def _kept(functions: set[str]) -> list[str]:
    """Return the instruction to keep functions that nothing calls yet, if there are any."""
    names = ", ".join(f"ptr @{name}" for name in sorted(functions))
    kept = f'[{len(functions)} x ptr] [{names}], section "llvm.metadata"'
    return [f"@llvm.compiler.used = appending global {kept}"] if functions else []


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
