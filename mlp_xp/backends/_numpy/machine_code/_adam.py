"""The loop of Adam, in vectors: a processor's own square roots would take most of its time.

A processor divides and takes roots in one unit, some 17 cycles each for a vector of 512 bits, and
all else that Adam computes takes as long as one of them. With AVX-512 the root is computed by
multiplications instead, from an estimate of 14 bits, while that unit divides (Markstein,
"Computation of elementary functions on the IBM RISC System/6000 processor", 1990).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from mlp_xp.backends._numpy.machine_code._cpu import has_tile

__all__ = ["adam"]

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_VECTOR_BYTES = 64


@intrinsic
def adam(context, n, p, g, m, v, rate, shrink, beta_1, rest_1, beta_2, rest_2, epsilon, l2):  # type: ignore[no-untyped-def]
    """Update n numbers at address p, with their gradients and Adam's state; return sum p^2."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        n, addresses, settings = arguments[0], arguments[1:5], arguments[5:]
        kind = settings[0].type
        arrays = [builder.inttoptr(address, kind.as_pointer()) for address in addresses]
        lanes = _VECTOR_BYTES // _Vectors(builder, kind).n_bytes
        zero, whole = _I64(0), builder.sub(n, builder.urem(n, _I64(lanes)))
        squares = _loop(builder, zero, whole, ir.VectorType(kind, lanes), arrays, settings)
        return builder.fadd(squares, _loop(builder, whole, n, kind, arrays, settings))

    return rate(n, p, g, m, v, rate, shrink, beta_1, rest_1, beta_2, rest_2, epsilon, l2), generate


def _loop(builder: Any, start: Any, stop: Any, kind: Any, arrays: Any, settings: Any) -> Any:
    """Update the numbers from ``start`` to ``stop``, one of a kind at once; return sum p^2."""
    vectors = _Vectors(builder, kind)
    fma = vectors.multiply_add
    rate, shrink, beta_1, rest_1, beta_2, rest_2, epsilon, l2 = map(vectors.repeat, settings)
    total = cgutils.alloca_once_value(builder, vectors.constant(0.0))
    with cgutils.for_range_slice(builder, start, stop, _I64(vectors.lanes)) as (i, _):
        places = [builder.bitcast(builder.gep(x, [i]), kind.as_pointer()) for x in arrays]
        p, g, m, v = (builder.load(place, align=vectors.n_bytes) for place in places)
        builder.store(fma(p, p, builder.load(total)), total)
        slope = fma(l2, p, g)
        m = fma(beta_1, m, builder.fmul(rest_1, slope))
        v = fma(beta_2, v, builder.fmul(rest_2, builder.fmul(slope, slope)))
        step = builder.fdiv(builder.fmul(rate, m), builder.fadd(vectors.root(v), epsilon))
        p = builder.fsub(builder.fmul(shrink, p), step)
        for value, place in zip((p, m, v), (places[0], *places[2:]), strict=True):
            builder.store(value, place, align=vectors.n_bytes)
    return vectors.sum(builder.load(total))


class _Vectors:
    """Operations on vectors of numbers, or on single numbers.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    kind : llvmlite.ir.Type
        Of double or float.
    """

    def __init__(self, builder: Any, kind: Any) -> None:
        self._builder, self._kind = builder, kind
        self._is_vector = isinstance(kind, ir.VectorType)
        self.lanes = kind.count if self._is_vector else 1
        self._number = kind.element if self._is_vector else kind
        self._is_double = isinstance(self._number, ir.DoubleType)
        self.n_bytes = 8 if self._is_double else 4  # Of one number.
        name = f"f{8 * self.n_bytes}"
        self._suffix = f"v{self.lanes}{name}" if self._is_vector else name

    def constant(self, value: float) -> Any:
        return ir.Constant(self._kind, [value] * self.lanes if self._is_vector else value)

    def repeat(self, value: Any) -> Any:
        """Return a vector of one number."""
        if not self._is_vector:
            return value
        nowhere = ir.Constant(self._kind, ir.Undefined)
        first = self._builder.insert_element(nowhere, value, _I32(0))
        order = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self._builder.shuffle_vector(first, nowhere, order)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return a b + c, rounded once where the processor can."""
        return self._call("llvm.fmuladd", a, b, c)

    def sum(self, values: Any) -> Any:
        """Return the sum of the numbers of a vector."""
        if not self._is_vector:
            return values
        kind = ir.FunctionType(self._number, [self._number, self._kind])
        name = f"llvm.vector.reduce.fadd.{self._suffix}"
        add = cgutils.get_or_insert_function(self._builder.module, kind, name)
        return self._builder.call(add, [ir.Constant(self._number, 0.0), values])

    def root(self, x: Any) -> Any:
        """Return the square root, rounded as the processor's but for rare last bits."""
        if not self._is_vector or not has_tile():
            return self._call("llvm.sqrt", x)
        builder, nfma = self._builder, self._negative_multiply_add
        # y ~ x^-1/2 to 14 bits; g -> x^1/2 and h -> x^-1/2 / 2, each step doubles their bits.
        y = self._estimate(x)
        g, h = builder.fmul(x, y), builder.fmul(y, self.constant(0.5))
        if self._is_double:
            error = nfma(g, h, self.constant(0.5))
            g, h = self.multiply_add(g, error, g), self.multiply_add(h, error, h)
        for _ in range(2):
            g = self.multiply_add(h, nfma(g, g, x), g)
        # The estimate is infinite for 0 and 0 for infinity, which are their own roots; NaN stays.
        return builder.select(builder.fcmp_unordered("uno", g, g), x, g)

    def _negative_multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return c - a b."""
        return self.multiply_add(self._builder.fneg(a), b, c)

    def _estimate(self, x: Any) -> Any:
        """Return x^-1/2 to 14 bits."""
        mask = ir.IntType(self.lanes)
        kind = ir.FunctionType(self._kind, [self._kind, self._kind, mask])
        name = f"llvm.x86.avx512.rsqrt14.p{'d' if self._is_double else 's'}.512"
        estimate = cgutils.get_or_insert_function(self._builder.module, kind, name)
        return self._builder.call(estimate, [x, x, mask(-1)])

    def _call(self, name: str, *values: Any) -> Any:
        kind = ir.FunctionType(self._kind, [self._kind] * len(values))
        function = cgutils.get_or_insert_function(
            self._builder.module, kind, f"{name}.{self._suffix}"
        )
        return self._builder.call(function, values)
