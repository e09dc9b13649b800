"""Vector operations in LLVM IR, which numba does not support.

On processors with shorter vectors, LLVM emits several instructions per operation.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from mlp_xp.backends._numpy.machine_code._intrinsics import call_function

_I32 = ir.IntType(32)


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat type, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"


class Vectors:
    """Operations on vectors of ``lanes`` floating-point elements, ``n_bytes`` bytes in total."""

    def __init__(self, builder: Any, number: Any, n_bytes: int = 64) -> None:
        self.builder, self.number = builder, number
        self.is_double = isinstance(number, ir.DoubleType)
        self._n_bytes = 8 if self.is_double else 4
        self.lanes = n_bytes // self._n_bytes
        self.kind = ir.VectorType(number, self.lanes)
        self._name = f"v{self.lanes}f{8 * self._n_bytes}"

    def constant(self, value: float) -> Any:
        """Return a vector filled with a Python number."""
        return ir.Constant(self.kind, [value] * self.lanes)

    def repeat(self, value: Any) -> Any:
        """Return a vector filled with a run-time value."""
        nowhere = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(nowhere, value, _I32(0))
        order = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, nowhere, order)

    def mask(self, n: Any) -> Any:
        """Return a mask of the first n lanes; n is a 64-bit integer."""
        positions = ir.Constant(ir.VectorType(n.type, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_unsigned("<", positions, self.repeat(n))

    def load(self, place: Any, mask: Any = None) -> Any:
        """Load the vector at an address, with 0 in masked lanes."""
        if mask is None:
            return self.builder.load(self._wide(place), align=self._n_bytes)
        arguments = [self._wide(place), _I32(self._n_bytes), mask, self.constant(0.0)]
        return self._call("llvm.masked.load", self.kind, arguments, ".p0")

    def store(self, value: Any, place: Any, mask: Any = None) -> None:
        """Write a vector to an address, except for masked lanes."""
        if mask is None:
            self.builder.store(value, self._wide(place), align=self._n_bytes)
            return
        arguments = [value, self._wide(place), _I32(self._n_bytes), mask]
        self._call("llvm.masked.store", ir.VoidType(), arguments, ".p0")

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c, rounded once if the processor supports it."""
        return self._call("llvm.fmuladd", self.kind, [a, b, c])

    def multiply_add_pairs(self, a: Any, b: Any, c: Any) -> Any:
        """Return c plus the dot product, in each lane, of the bfloat16 pairs in a and b."""
        pairs = [self.builder.bitcast(x, ir.VectorType(_I32, self.lanes)) for x in (a, b)]
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        return call_function(self.builder, name, self.kind, c, *pairs)

    def round_pairs(self, first: Any, second: Any) -> Any:
        """Round two vectors to bfloat16, and return them as one vector of pairs in 32 bits."""
        name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
        kind = ir.VectorType(_BFloat(), 2 * self.lanes)
        # `first` fills the lower lanes.
        rounded = call_function(self.builder, name, kind, second, first)
        return self.builder.bitcast(rounded, ir.VectorType(_I32, self.lanes))

    def interleave(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Interleave the 16-bit elements of a and b as two vectors of pairs."""
        n, builder = 2 * self.lanes, self.builder
        a, b = (builder.bitcast(x, ir.VectorType(ir.IntType(16), n)) for x in (a, b))
        halves = []
        for start in (0, self.lanes):
            order = [i + k * n for i in range(start, start + self.lanes) for k in (0, 1)]
            places = ir.Constant(ir.VectorType(_I32, n), order)
            pairs = builder.shuffle_vector(a, b, places)
            halves.append(builder.bitcast(pairs, ir.VectorType(_I32, self.lanes)))
        return halves[0], halves[1]

    def _wide(self, place: Any) -> Any:
        return self.builder.bitcast(place, self.kind.as_pointer())

    def _call(self, name: str, result: Any, arguments: Any, suffix: str = "") -> Any:
        return call_function(self.builder, f"{name}.{self._name}{suffix}", result, *arguments)
