"""Adam's update loop in vector instructions, without the processor's slow square root.

Divisions and square roots share one execution unit. For a 512-bit vector, each operation takes
about 17 cycles, roughly as long as the rest of Adam's computation. With AVX-512, the square root is
therefore computed from a 14-bit estimate by multiplications, at the same time as the division
(Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from mlp_xp.backends._numpy.machine_code._cpu import has_avx512
from mlp_xp.backends._numpy.machine_code._intrinsics import call_function, instruction
from mlp_xp.backends._numpy.machine_code._vectors import Vectors

_I64 = ir.IntType(64)


@instruction()
def adam(builder, n, p, g, m, v, rate, shrink, beta_1, rest_1, beta_2, rest_2, epsilon, l2):  # type: ignore[no-untyped-def]
    """Update n parameters at address p, given gradients and Adam's state; return sum p^2."""
    vectors = Vectors(builder, rate.type)
    arrays = [builder.inttoptr(x, vectors.number.as_pointer()) for x in (p, g, m, v)]
    settings = rate, shrink, beta_1, rest_1, beta_2, rest_2, epsilon, l2
    repeated = [vectors.repeat(setting) for setting in settings]
    total = cgutils.alloca_once_value(builder, vectors.constant(0.0))
    n_left = builder.urem(n, _I64(vectors.lanes))
    whole = builder.sub(n, n_left)
    with cgutils.for_range_slice(builder, _I64(0), whole, _I64(vectors.lanes)) as (i, _):
        _update(vectors, [builder.gep(x, [i]) for x in arrays], repeated, total, None)
    with builder.if_then(builder.icmp_unsigned("!=", n_left, _I64(0))):
        # Use a masked load: results then do not depend on how threads divide an array.
        last, mask = [builder.gep(x, [whole]) for x in arrays], vectors.mask(n_left)
        _update(vectors, last, repeated, total, mask)
    return vectors.sum(builder.load(total))


def _update(vectors: Vectors, places: Any, settings: Any, total: Any, mask: Any) -> None:
    """Update one vector of each array, and add p^2 to the total."""
    builder, fma = vectors.builder, vectors.multiply_add
    rate, shrink, beta_1, rest_1, beta_2, rest_2, epsilon, l2 = settings
    p, g, m, v = (vectors.load(place, mask) for place in places)
    builder.store(fma(p, p, builder.load(total)), total)
    slope = fma(l2, p, g)
    m = fma(beta_1, m, builder.fmul(rest_1, slope))
    v = fma(beta_2, v, builder.fmul(rest_2, builder.fmul(slope, slope)))
    direction = builder.fdiv(m, builder.fadd(_root(vectors, v), epsilon))
    p = fma(builder.fneg(rate), direction, builder.fmul(shrink, p))
    for value, place in zip((p, m, v), (places[0], *places[2:]), strict=True):
        vectors.store(value, place, mask)


def _root(vectors: Vectors, x: Any) -> Any:
    """Return the square root, with an error below 0.75 units in the last place.

    Roots of subnormal numbers are less accurate.
    """
    if not has_avx512():
        return vectors.call("llvm.sqrt", x)
    builder, fma, half = vectors.builder, vectors.multiply_add, vectors.constant(0.5)
    # y approximates x^-1/2 to 14 bits. g converges to x^1/2 and h to x^-1/2 / 2; each iteration
    # doubles the number of correct bits.
    y = _estimate(vectors, x)
    g, h = builder.fmul(x, y), builder.fmul(y, half)
    if vectors.is_double:
        error = fma(builder.fneg(g), h, half)
        g, h = fma(g, error, g), fma(h, error, h)
    g = fma(h, fma(builder.fneg(g), g, x), g)
    # If x is 0 or infinity, g is NaN and the root is x. The root of NaN is NaN.
    return builder.select(builder.fcmp_unordered("uno", g, g), x, g)


def _estimate(vectors: Vectors, x: Any) -> Any:
    """Return an estimate of x^-1/2 with 14 correct bits."""
    all_lanes = ir.IntType(vectors.lanes)(-1)
    name = f"llvm.x86.avx512.rsqrt14.p{'d' if vectors.is_double else 's'}.512"
    return call_function(vectors.builder, name, vectors.kind, x, x, all_lanes)
