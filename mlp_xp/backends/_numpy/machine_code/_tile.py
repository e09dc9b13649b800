"""The inner kernel of our products: a tile of results in the registers, operands as they lie.

A BLAS copies its operands into panels first, which pays when each number is then used hundreds of
times. A batch of 128 rows uses each weight 128 times, and the copying takes a fifth of the time.
Here a tile of 6 rows of 4 vectors stays in the registers of the processor while the operands stream
past it, uncopied (the inner kernel of Goto, van de Geijn, "Anatomy of high-performance matrix
multiplication", 2008, without its packing).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mlp_xp.backends._numpy.machine_code._vectors import Vectors

__all__ = ["COLUMNS", "ROWS", "tile"]

VECTORS = 4
ROWS = 6  # 6 rows of 4 vectors fill 24 of the 32 registers
COLUMNS = 16 * VECTORS  # of float32

_I64 = ir.IntType(64)


@intrinsic
def tile(context, a, a_row, a_step, rows, b, b_row, columns, n, c, c_row, start, start_row):  # type: ignore[no-untyped-def]
    """Set ``c[r, j] = start[r, j] + sum_s a[r, s] b[s, j]`` for ``rows`` rows, at most 6.

    ``columns`` is 16, 32, 48 or 64, ``n`` at least 1. Addresses are in bytes. Element ``a[r, s]``
    is ``r * a_row + s * a_step`` numbers after ``a``, row ``s`` of b begins ``s * b_row`` numbers
    after ``b``, and so on. Nothing is added where ``start`` is 0; it may be ``c``. Numba has no
    vectors, so this is written in LLVM's own language.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        vectors = Vectors(builder, ir.FloatType())
        for n_vectors in range(1, VECTORS + 1):
            # A loop for each width, so that its registers are known.
            wanted = _I64(n_vectors * vectors.lanes)
            with builder.if_then(builder.icmp_signed("==", arguments[6], wanted)):
                _loop(vectors, arguments, n_vectors)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 12), generate


def _loop(vectors: Vectors, arguments: Any, n_vectors: int) -> None:
    """Compute a tile of so many vectors wide."""
    a, a_row, a_step, rows, b, b_row, _, n, c, c_row, start, start_row = arguments
    builder, wide = vectors.builder, vectors.kind
    cells = [(row, v) for row in range(ROWS) for v in range(n_vectors)]

    def at(pointer: Any, offset: Any, v: int = 0) -> Any:
        return builder.gep(pointer, [builder.add(offset, _I64(v * vectors.lanes))])

    has_start = builder.icmp_signed("!=", start, _I64(0))
    # Where nothing is added, c is read in place of it, and dropped.
    start = builder.select(has_start, start, c)
    start_row = builder.select(has_start, start_row, c_row)
    pointers = (builder.inttoptr(x, vectors.number.as_pointer()) for x in (a, b, c, start))
    a, b, c, start = pointers
    last = builder.sub(rows, _I64(1))

    def up_to_last(row: int) -> Any:
        """Return the row, or the last one there is: what is computed twice is not stored twice."""
        is_there = builder.icmp_signed("<", _I64(row), rows)
        return builder.select(is_there, _I64(row), last)

    places = [up_to_last(row) for row in range(ROWS)]
    a_rows = [at(a, builder.mul(place, a_row)) for place in places]
    first = {}
    for row, v in cells:
        place = at(start, builder.mul(places[row], start_row), v)
        loaded = vectors.load(place)
        first[row, v] = builder.select(has_start, loaded, vectors.constant(0.0))

    entry = builder.block
    body, after = builder.append_basic_block("step"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    step = builder.phi(_I64)
    step.add_incoming(_I64(0), entry)
    sums = {cell: builder.phi(wide) for cell in cells}
    for cell, total in sums.items():
        total.add_incoming(first[cell], entry)
    b_place = builder.mul(step, b_row)
    bs = [vectors.load(at(b, b_place, v)) for v in range(n_vectors)]
    a_place = builder.mul(step, a_step)
    for row in range(ROWS):
        repeated = vectors.repeat(builder.load(at(a_rows[row], a_place)))
        for v in range(n_vectors):
            total = sums[row, v]
            sums[row, v] = vectors.multiply_add(repeated, bs[v], total)
            total.add_incoming(sums[row, v], body)
    following = builder.add(step, _I64(1))
    step.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, n), body, after)

    builder.position_at_end(after)
    for row in range(ROWS):
        with builder.if_then(builder.icmp_signed("<", _I64(row), rows)):
            for v in range(n_vectors):
                place = at(c, builder.mul(_I64(row), c_row), v)
                vectors.store(sums[row, v], place)
