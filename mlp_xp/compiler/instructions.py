"""The instructions of a loop's body in LLVM's intermediate language."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple


class Type(NamedTuple):
    """A floating-point type of LLVM, and the constants of its functions."""

    name: str
    integer: str
    mantissa: int
    bias: int
    lowest_exp: float  # Below, e^x is 0.
    highest_exp: float  # Above, e^x / 2 is infinite.
    n_exp: int  # The number of terms of the Taylor series of e^x for |x| <= ln(2) / 2.
    n_log: int  # The number of terms of the series of log(x) in (x - 1) / (x + 1).
    n_sin: int  # The number of terms of the Taylor series of sin(x) and cos(x) for |x| <= pi / 4.
    # Constants as sums: each part is rounded from what the parts before it leave (mpmath, 300 bits;
    # the first parts of logarithms are short, so their products with exponents are exact).
    ln2: tuple[float, float]
    log10_2: tuple[float, float]
    half_pi: tuple[float, float, float]
    tiny: float

    @property
    def width(self) -> int:
        """The number of bits."""
        return int(self.integer[1:])


TYPES = {
    "float32": Type(
        "float", "i32", 23, 127, -104.0, 90.0, 8, 5, 5, (0.693145751953125, 1.4286068203094173e-06),
        (0.301025390625, 4.605039066518657e-06),
        (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
        2.0**-126,
    ),
    "float64": Type(
        "double", "i64", 52, 1023, -746.0, 711.0, 14, 12, 8,
        (0.6931471803691238, 1.9082149292705877e-10), (0.30102999566361177, 3.694239077158931e-13),
        (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
        2.0**-1022,
    ),
    **{
        dtype: Type(
            kind, kind, 0, 0, 0.0, 0.0, 0, 0, 0, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0, 0.0), 0.0
        )
        for dtype, kind in (("int32", "i32"), ("int64", "i64"), ("uint8", "i8"))
    },
}  # fmt: skip


class Body:
    """The instructions of a loop's body; values are names of LLVM registers or constants."""

    def __init__(self) -> None:
        self.type = TYPES["float32"]  # The type of the operands of the current instruction.
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self.vectors: set[str] = set()  # Functions that only vectorized loops call.

    def new(self, instruction: str) -> str:
        """Add an instruction, and return the name of its result."""
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def number(self, value: float) -> str:
        """Return a constant of the current type."""
        if isinstance(value, bool):
            return str(value).lower()
        if self.type.name == self.type.integer:
            return str(int(value))
        if self.type.name == "float":
            value = _as_float32(value)
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"

    def pair(self, value: float, rest: float) -> tuple[str, str]:
        """Return value + rest as two constants; the first is the nearest number of the type."""
        first = _as_float32(value) if self.type.name == "float" else value
        return self.number(first), self.number(value - first + rest)

    def arithmetic(self, operation: str, a: str, b: str) -> str:
        """Return the result of an operation with numbers."""
        return self.new(f"{operation} {self.type.name} {a}, {b}")

    def integer(self, operation: str, a: Any, b: Any) -> str:
        """Return the result of an operation with integers of the type's size."""
        return self.new(f"{operation} {self.type.integer} {a}, {b}")

    def call(self, function: str, *operands: str) -> str:
        """Return the result of one of LLVM's functions."""
        kind = self.type.name
        name = f"@llvm.{function}.{'f32' if kind == 'float' else 'f64'}"
        self.declared.add(f"declare {kind} {name}({', '.join([kind] * len(operands))})")
        return self.new(f"call {kind} {name}({', '.join(f'{kind} {x}' for x in operands)})")

    def compare(self, how: str, a: str, b: str) -> str:
        """Return whether a comparison is true."""
        return self.new(f"fcmp {how} {self.type.name} {a}, {b}")

    def select(self, condition: str, a: str, b: str) -> str:
        """Return a where the condition is true, and b elsewhere."""
        kind = self.type.name
        return self.new(f"select i1 {condition}, {kind} {a}, {kind} {b}")

    def bits(self, x: str) -> str:
        """Return the bits of a number as an integer."""
        return self.new(f"bitcast {self.type.name} {x} to {self.type.integer}")

    def from_bits(self, x: str) -> str:
        """Return the number that has these bits."""
        return self.new(f"bitcast {self.type.integer} {x} to {self.type.name}")

    def convert(self, x: str, dtype: str) -> str:
        """Convert a number of another dtype; convert to integers by truncation."""
        if dtype == "bool":
            return self.select(x, self.number(1.0), self.number(0.0))
        given, kind = TYPES[dtype].name, self.type.name
        if kind.startswith("i") and not given.startswith("i"):
            name = f"@llvm.fptosi.sat.{kind}.{'f32' if given == 'float' else 'f64'}"
            self.declared.add(f"declare {kind} {name}({given})")
            return self.new(f"call {kind} {name}({given} {x})")
        if kind.startswith("i"):
            how = {"i32 i64": "sext", "i64 i32": "trunc"}.get(f"{given} {kind}", "zext")
        else:
            how = {"float": "fpext", "double": "fptrunc", "i8": "uitofp"}.get(given, "sitofp")
        return self.new(f"{how} {given} {x} to {kind}")

    def both(self, a: str, b: str) -> str:
        """Return whether two conditions are true."""
        return self.new(f"and i1 {a}, {b}")

    # --- made of these ---------------------------------------------------------------------------

    def add(self, a: str, b: str) -> str:
        """Return a + b."""
        return self.arithmetic("fadd", a, b)

    def subtract(self, a: str, b: str) -> str:
        """Return a - b."""
        return self.arithmetic("fsub", a, b)

    def multiply(self, a: str, b: str) -> str:
        """Return a b."""
        return self.arithmetic("fmul", a, b)

    def divide(self, a: str, b: str) -> str:
        """Return a / b."""
        return self.arithmetic("fdiv", a, b)

    def negative(self, x: str) -> str:
        """Return -x."""
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

    def beyond(self, function: str, x: str, bound: float, y: str) -> str:
        """Return y, but the C library's function of x where |x| is larger than a bound.

        LLVM can vectorize no call of the library, nor a branch around it. So the call is in a
        function that has variants for vectors, which call the library if one of the numbers is
        beyond the bound.
        """
        kind, name = self.type.name, f"beyond_{function}_{self.type.name}"
        for n in _LENGTHS:
            self.declared |= _beyond(function, self.type, n, self.number(bound))
        self.vectors |= {f"{name}_{n}" for n in _LENGTHS[1:]}
        variants = ",".join(f"_ZGV_LLVM_N{n}vv_{name}_1({name}_{n})" for n in _LENGTHS[1:])
        traits = f'nounwind willreturn memory(none) "vector-function-abi-variant"="{variants}"'
        return self.new(f"call {kind} @{name}_1({kind} {x}, {kind} {y}) {traits}")


# The numbers of elements that LLVM computes at once.
_LENGTHS = (1, 2, 4, 8, 16)


def _beyond(function: str, kind: Type, n: int, bound: str) -> set[str]:
    """Return a function of n numbers that `Body.beyond` calls, and the functions that it calls."""
    number, truth, suffix = kind.name, "i1", f"f{kind.width}"
    if n > 1:
        number, truth, suffix = f"<{n} x {number}>", f"<{n} x i1>", f"v{n}{suffix}"
        bound = f"<{', '.join([f'{kind.name} {bound}'] * n)}>"
    declared = {f"declare {number} @llvm.{name}.{suffix}({number})" for name in ("fabs", function)}
    if n > 1:
        declared.add(f"declare i1 @llvm.vector.reduce.or.v{n}i1({truth})")
    some = f"call i1 @llvm.vector.reduce.or.v{n}i1({truth} %far)" if n > 1 else "or i1 %far, false"
    lines = [
        f"define internal {number} @beyond_{function}_{kind.name}_{n}({number} %x, {number} %y)",
        "    noinline nounwind willreturn memory(none) {",
        f"  %size = call {number} @llvm.fabs.{suffix}({number} %x)",
        f"  %far = fcmp ogt {number} %size, {bound}",
        f"  %some = {some}",
        "  br i1 %some, label %outside, label %inside",
        "inside:",
        f"  ret {number} %y",
        "outside:",
        f"  %exact = call {number} @llvm.{function}.{suffix}({number} %x)",
        f"  %z = select {truth} %far, {number} %exact, {number} %y",
        f"  ret {number} %z",
        "}",
    ]
    return {*declared, "\n".join(lines)}


def _as_float32(value: float) -> float:
    try:
        found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return found
