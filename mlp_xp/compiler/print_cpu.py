"""Print the loops of kernels in LLVM's intermediate language, for the CPU.

All mathematical functions are polynomials within the loop, so LLVM vectorizes it. One loop computes
several results of the same shape, and may sum another node over all elements. Operands have the
results' shape (rows, columns), or are broadcast along one or both axes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.kernel import COLUMN, FULL, ROW, SCALAR, Kernel, UnprintableError


class Loop(NamedTuple):
    """The text of a loop.

    The function ``name`` receives the address of a record of 64-bit integers: ``HEADER_WORDS``
    words for others, then the number of rows and of columns, then the addresses of the inputs, of
    the results, and of the total if there is one. Its other arguments are the number of the thread,
    and the number of threads that share the work.
    """

    name: str
    text: str


HEADER_WORDS = 5


class _Type(NamedTuple):
    """A floating-point type of LLVM, and the constants of its functions."""

    name: str
    integer: str
    mantissa: int
    bias: int
    lowest_exp: float  # Below, e^x is 0.
    highest_exp: float  # Above, e^x is infinite.
    n_exp: int  # The number of terms of the Taylor series of e^x for |x| <= ln(2) / 2.
    n_log: int  # The number of terms of the series of log(x) in (x - 1) / (x + 1).
    ln2: tuple[float, float]  # The logarithm of 2 as a short number and a remainder.
    tiny: float


_TYPES = {
    "float32": _Type(
        "float", "i32", 23, 127, -104.0, 89.0, 8, 5, (0.693145751953125, 1.4286068203094173e-06),
        2.0**-126,
    ),
    "float64": _Type(
        "double", "i64", 52, 1023, -746.0, 710.0, 14, 12,
        (0.6931471803691238, 1.9082149292705877e-10), 2.0**-1022,
    ),
    "int32": _Type("i32", "i32", 0, 0, 0.0, 0.0, 0, 0, (0.0, 0.0), 0.0),
}  # fmt: skip


class _Body:
    """The instructions of a loop's body; values are names of LLVM registers or constants."""

    def __init__(self) -> None:
        self.type = _TYPES["float32"]  # The type of the operands of the current instruction.
        self.lines: list[str] = []
        self.declared: set[str] = set()

    def new(self, instruction: str) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def number(self, value: float) -> str:
        if self.type.name == "i32":
            return str(int(value))
        if self.type.name == "float":
            value = _as_float32(value)
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"

    def arithmetic(self, operation: str, a: str, b: str) -> str:
        return self.new(f"{operation} {self.type.name} {a}, {b}")

    def integer(self, operation: str, a: Any, b: Any) -> str:
        return self.new(f"{operation} {self.type.integer} {a}, {b}")

    def call(self, function: str, *operands: str) -> str:
        kind = self.type.name
        name = f"@llvm.{function}.{'f32' if kind == 'float' else 'f64'}"
        self.declared.add(f"declare {kind} {name}({', '.join([kind] * len(operands))})")
        return self.new(f"call {kind} {name}({', '.join(f'{kind} {x}' for x in operands)})")

    def compare(self, how: str, a: str, b: str) -> str:
        return self.new(f"fcmp {how} {self.type.name} {a}, {b}")

    def select(self, condition: str, a: str, b: str) -> str:
        kind = self.type.name
        return self.new(f"select i1 {condition}, {kind} {a}, {kind} {b}")

    def bits(self, x: str) -> str:
        return self.new(f"bitcast {self.type.name} {x} to {self.type.integer}")

    def from_bits(self, x: str) -> str:
        return self.new(f"bitcast {self.type.integer} {x} to {self.type.name}")

    # --- made of these ---------------------------------------------------------------------------

    def add(self, a: str, b: str) -> str:
        return self.arithmetic("fadd", a, b)

    def subtract(self, a: str, b: str) -> str:
        return self.arithmetic("fsub", a, b)

    def multiply(self, a: str, b: str) -> str:
        return self.arithmetic("fmul", a, b)

    def divide(self, a: str, b: str) -> str:
        return self.arithmetic("fdiv", a, b)

    def negative(self, x: str) -> str:
        return self.new(f"fneg {self.type.name} {x}")

    def extreme(self, how: str, a: str, b: str) -> str:
        """Return the larger or the smaller number, or NaN if one is NaN."""
        chosen = self.select(self.compare(how, a, b), a, b)
        return self.select(self.compare("uno", a, a), a, chosen)

    def series(self, x: str, coefficients: Sequence[float]) -> str:
        """Return a polynomial by Horner's scheme; the highest power comes first."""
        y = self.number(coefficients[0])
        for c in coefficients[1:]:
            y = self.call("fmuladd", y, x, self.number(c))
        return y

    def _reduce(self, x: str) -> tuple[str, str, str]:
        """Return n as a number and as an integer, and r, for x = n ln 2 + r."""
        kind = self.type
        x = self.extreme("olt", self.extreme("ogt", x, self.number(kind.lowest_exp)),
                         self.number(kind.highest_exp))  # fmt: skip
        # Adding this number rounds to an integer, which is then in the lowest bits.
        magic = 1.5 * 2.0**kind.mantissa
        shifted = self.call("fmuladd", x, self.number(1 / math.log(2)), self.number(magic))
        n = self.subtract(shifted, self.number(magic))
        bits = self.bits(self.number(magic))
        integer = self.integer("sub", self.bits(shifted), bits)
        r = x
        for part in kind.ln2:
            r = self.call("fmuladd", n, self.number(-part), r)
        return n, integer, r

    def _scale(self, y: str, n: str) -> str:
        """Return y 2^n, in two steps, since 2^n may be infinite or 0 where the product is not."""
        half = self.integer("ashr", n, 1)
        for power in (half, self.integer("sub", n, half)):
            y = self.multiply(y, self._power(power))
        return y

    def _power(self, n: str) -> str:
        biased = self.integer("add", n, self.type.bias)
        return self.from_bits(self.integer("shl", biased, self.type.mantissa))

    def _exp_terms(self) -> list[float]:
        return [1 / math.factorial(k) for k in range(self.type.n_exp - 1, -1, -1)]

    def exp(self, x: str) -> str:
        _, n, r = self._reduce(x)
        return self._scale(self.series(r, self._exp_terms()), n)

    def expm1(self, x: str, *, is_negative: bool = False) -> str:
        """Return e^x - 1 = 2^n (e^r - 1) + (2^n - 1), or 2^n e^r - 1 if n is large."""
        number, n, r = self._reduce(x)
        *terms, _ = self._exp_terms()
        rest = self.multiply(r, self.series(r, terms))
        power = self._scale(self.number(1.0), n)
        minus_1 = self.number(-1.0)
        y = self.call("fmuladd", rest, power, self.add(power, minus_1))
        if is_negative:
            return y
        whole = self.add(self._scale(self.add(rest, self.number(1.0)), n), minus_1)
        return self.select(self.compare("ogt", number, self.number(60.0)), whole, y)

    def tanh(self, x: str) -> str:
        size = self.call("fabs", x)
        e = self.expm1(self.multiply(size, self.number(-2.0)), is_negative=True)
        y = self.divide(self.negative(e), self.add(e, self.number(2.0)))
        return self.call("copysign", y, x)

    def log(self, x: str) -> str:
        """Return log(2^n m) = n ln 2 + 2 artanh((m - 1) / (m + 1)), with m near 1."""
        kind = self.type
        infinity, zero = self.number(math.inf), self.number(0.0)
        is_tiny = self.compare("olt", x, self.number(kind.tiny))
        shift = kind.mantissa + 2
        scaled = self.select(is_tiny, self.multiply(x, self.number(2.0**shift)), x)
        bits, root = self.bits(scaled), self.bits(self.number(math.sqrt(0.5)))
        n = self.integer("ashr", self.integer("sub", bits, root), kind.mantissa)
        m = self.from_bits(self.integer("sub", bits, self.integer("shl", n, kind.mantissa)))
        count = self.new(f"sitofp {kind.integer} {n} to {kind.name}")
        count = self.subtract(count, self.select(is_tiny, self.number(float(shift)), zero))
        f = self.add(m, self.number(-1.0))
        s = self.divide(f, self.add(f, self.number(2.0)))
        z = self.multiply(s, s)
        terms = [2 / (2 * k + 1) for k in range(kind.n_log, 0, -1)]
        y = self.multiply(s, self.multiply(z, self.series(z, terms)))
        y = self.add(y, self.multiply(count, self.number(kind.ln2[1])))
        y = self.call("fmuladd", s, self.number(2.0), y)
        y = self.call("fmuladd", count, self.number(kind.ln2[0]), y)
        y = self.select(self.compare("oeq", x, infinity), x, y)
        y = self.select(self.compare("oeq", x, zero), self.number(-math.inf), y)
        invalid = self.compare("ult", x, zero)
        return self.select(invalid, self.number(math.nan), y)

    def log1p(self, x: str) -> str:
        """Return log(u) for u = 1 + x, corrected for the rounding error of u."""
        one = self.number(1.0)
        u = self.add(x, one)
        error = self.subtract(x, self.subtract(u, one))
        log = self.log(u)
        is_finite = self.compare("olt", u, self.number(math.inf))
        is_positive = self.compare("ogt", u, self.number(0.0))
        is_ordinary = self.new(f"and i1 {is_finite}, {is_positive}")
        return self.select(is_ordinary, self.add(log, self.divide(error, u)), log)

    def logaddexp(self, a: str, b: str) -> str:
        apart = self.negative(self.call("fabs", self.subtract(a, b)))
        y = self.add(self.extreme("ogt", a, b), self.log1p(self.exp(apart)))
        # Infinities of the same sign have no difference.
        return self.select(self.compare("oeq", a, b), self.add(a, self.number(math.log(2))), y)

    def sign(self, x: str) -> str:
        zero = self.number(0.0)
        below = self.select(self.compare("olt", x, zero), self.number(-1.0), x)
        return self.select(self.compare("ogt", x, zero), self.number(1.0), below)


def _as_float32(value: float) -> float:
    try:
        found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return found


# The CPU expression of each primitive with floating-point operands.
EXPRESSIONS: dict[str, Callable[..., str]] = {
    "negative": _Body.negative,
    "abs": lambda b, x: b.call("fabs", x),
    "exp": _Body.exp,
    "expm1": _Body.expm1,
    "log": _Body.log,
    "log1p": _Body.log1p,
    "logaddexp": _Body.logaddexp,
    "sqrt": lambda b, x: b.call("sqrt", x),
    "tanh": _Body.tanh,
    "reciprocal": lambda b, x: b.divide(b.number(1.0), x),
    "sign": _Body.sign,
    "floor": lambda b, x: b.call("floor", x),
    "ceil": lambda b, x: b.call("ceil", x),
    "trunc": lambda b, x: b.call("trunc", x),
    "round": lambda b, x: b.call("roundeven", x),
    "copysign": lambda b, x, y: b.call("copysign", x, y),
    "add": _Body.add,
    "subtract": _Body.subtract,
    "multiply": _Body.multiply,
    "divide": _Body.divide,
    "maximum": lambda b, x, y: b.extreme("ogt", x, y),
    "minimum": lambda b, x, y: b.extreme("olt", x, y),
    "isnan": lambda b, x: b.compare("uno", x, x),
    "less": lambda b, x, y: b.compare("olt", x, y),
    "less_equal": lambda b, x, y: b.compare("ole", x, y),
    "greater": lambda b, x, y: b.compare("ogt", x, y),
    "greater_equal": lambda b, x, y: b.compare("oge", x, y),
    "equal": lambda b, x, y: b.compare("oeq", x, y),
    "not_equal": lambda b, x, y: b.compare("une", x, y),
}
# The expressions of logical functions, whose operands are truth values.
LOGICAL: dict[str, Callable[..., str]] = {
    "logical_not": lambda b, x: b.new(f"xor i1 {x}, true"),
    "logical_and": lambda b, x, y: b.new(f"and i1 {x}, {y}"),
    "logical_or": lambda b, x, y: b.new(f"or i1 {x}, {y}"),
    "logical_xor": lambda b, x, y: b.new(f"xor i1 {x}, {y}"),
}
# The expressions of primitives with operands of 32-bit integers; products wrap around.
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
    name: lambda b, x, y, how=how: b.new(f"icmp {how} i32 {x}, {y}")
    for name, how in _COMPARISONS.items()
}


@lru_cache(maxsize=1024)
def print_kernel(kernel: Kernel) -> Loop:
    """Return the loop of a kernel. Raise UnprintableError if a primitive has no CPU expression."""
    body = _Body()
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


def _type_of(dtype: str) -> _Type:
    if dtype not in _TYPES:
        raise UnprintableError(f"there are no loops for {dtype}")
    return _TYPES[dtype]


def _load(body: _Body, node: Node, array: str, at: str) -> str:
    if node.dtype == "bool":
        place = body.new(f"getelementptr i8, ptr {array}, i64 {at}")
        return body.new(f"icmp ne i8 {body.new(f'load i8, ptr {place}')}, 0")
    kind = _type_of(node.dtype).name
    return body.new(f"load {kind}, ptr {body.new(f'getelementptr {kind}, ptr {array}, i64 {at}')}")


def _store(body: _Body, node: Node, value: str, array: str) -> None:
    if node.dtype == "bool":
        kind, value = "i8", body.new(f"zext i1 {value} to i8")
    else:
        kind = _type_of(node.dtype).name
    place = body.new(f"getelementptr {kind}, ptr {array}, i64 %at")
    body.lines.append(f"  store {kind} {value}, ptr {place}")


def _print(body: _Body, node: Node, operands: Sequence[str]) -> str:
    is_conversion = node.operation in ("number", "where", "astype")
    dtype = node.dtype if is_conversion else node.operands[0].dtype
    body.type = _TYPES.get(dtype, body.type)
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
            return _Body.select
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
    body: _Body, n_arrays: int, total: str | None, kind: str, is_flat: bool, sums_rows: bool
) -> str:
    """Return the module: a function that reads the record, and the loop.

    ``kind`` is the type of the total.
    """
    n_words = HEADER_WORDS
    names = [f"%a{i}" for i in range(n_arrays)] + ([] if total is None else ["%total"])
    fields = ["%n_rows", "%n_columns", *(f"{name}.word" for name in names)]
    read = []
    for i, field in enumerate(fields):
        read.append(f"  {field}.place = getelementptr i64, ptr %record, i64 {n_words + i}")
        read.append(f"  {field} = load i64, ptr {field}.place")
    read += [f"  {name} = inttoptr i64 {name}.word to ptr" for name in names]
    parameters = ", ".join(f"ptr noalias {name}" for name in names)
    arguments = ", ".join(f"ptr {name}" for name in names)
    length = "%n_columns" if is_flat else "%n_rows"
    bound = "%high" if is_flat else "%n_columns"
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
    outer = [
        "outer:",
        "  %row = phi i64 [ %first, %entry ], [ %next.row, %after ]",
        *(
            []
            if total is None
            else [f"  %sum.row = phi {kind} [ {zero}, %entry ], [ {carried}, %after ]"]
        ),
        "  %base = mul i64 %row, %n_columns",
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
        f"define internal void @loop({parameters}, i64 %low, i64 %high, i64 %n_columns) {{",
        "entry:",
        *some,
        "  %some = and i1 %some.rows, %some.columns",
        f"  %first = add i64 {first}, 0",
        "  br i1 %some, label %outer, label %end",
        *outer, *inner, *after, *end,
        "  ret void",
        "}",
        "define void @NAME(i64 %address, i64 %thread, i64 %n_threads, i64 %totals, i64 %scratch) {",
        "  %record = inttoptr i64 %address to ptr",
        *read,
        *_start("%thread", "%low", length),
        "  %next.thread = add i64 %thread, 1",
        *_start("%next.thread", "%high", length),
        f"  call void @loop({arguments}, i64 %low, i64 %high, i64 %n_columns)",
        "  ret void",
        "}",
        *([] if total is None else _LANES),
    ])  # fmt: skip


def _start(thread: str, result: str, length: str) -> list[str]:
    """Return the instructions for where a thread's part starts: at a multiple of 16."""
    return [
        f"  {result}.product = mul i64 {length}, {thread}",
        f"  {result}.quotient = sdiv i64 {result}.product, %n_threads",
        f"  {result}.vectors = sdiv i64 {result}.quotient, 16",
        f"  {result}.start = mul i64 {result}.vectors, 16",
        f"  {result}.is.last = icmp eq i64 {thread}, %n_threads",
        f"  {result} = select i1 {result}.is.last, i64 {length}, i64 {result}.start",
    ]
