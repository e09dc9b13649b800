"""The inner kernel of our products: a tile of results in the registers, operands as they lie.

A BLAS copies its operands into panels first, which pays when each number is then used hundreds of
times. A batch of 128 rows uses each weight 128 times, and the copying takes a fifth of the time.
Here a tile of 6 x 64 results stays in the registers of the processor while the operands stream past
it, uncopied (the inner kernel of Goto, van de Geijn, "Anatomy of high-performance matrix
multiplication", 2008, without its packing).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["COLUMNS", "ROWS", "tile"]

LANES = 16  # float32 numbers in a vector of 512 bits
VECTORS = 4
ROWS = 6  # 6 rows of 4 vectors fill 24 of the 32 registers
COLUMNS = LANES * VECTORS

_I64, _F32 = ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_F32, LANES)


@intrinsic
def tile(context, a, a_row, a_step, rows, b, b_row, columns, n, c, c_row, start, start_row):  # type: ignore[no-untyped-def]
    """Set ``c[r, j] = start[r, j] + sum_s a[r, s] b[s, j]`` for ``rows`` rows, at most 6.

    ``columns`` is 16, 32, 48 or 64, ``n`` at least 1. Addresses are in bytes. Element ``a[r, s]``
    is ``r * a_row + s * a_step`` numbers after ``a``, row ``s`` of b begins ``s * b_row`` numbers
    after ``b``, and so on. Nothing is added where ``start`` is 0; it may be ``c``. Numba has no
    vectors, so this is written in LLVM's own language.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        for vectors in range(1, VECTORS + 1):
            # A loop for each width, so that its registers are known.
            wanted = ir.Constant(_I64, vectors * LANES)
            with builder.if_then(builder.icmp_signed("==", arguments[6], wanted)):
                _loop(builder, arguments, vectors)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 12), generate


def _number(value: int) -> Any:
    return ir.Constant(_I64, value)


def _loop(builder: Any, arguments: Any, vectors: int) -> None:
    a, a_row, a_step, rows, b, b_row, _, n, c, c_row, start, start_row = arguments
    cells = [(row, v) for row in range(ROWS) for v in range(vectors)]

    def at(pointer: Any, offset: Any) -> Any:
        return builder.gep(pointer, [offset])

    def vector(pointer: Any, offset: Any) -> Any:
        return builder.bitcast(at(pointer, offset), _VECTOR.as_pointer())

    def load(pointer: Any) -> Any:
        loaded = builder.load(pointer)
        loaded.align = 4
        return loaded

    has_start = builder.icmp_signed("!=", start, _number(0))
    # Where nothing is added, c is read in place of it, and dropped.
    start = builder.select(has_start, start, c)
    start_row = builder.select(has_start, start_row, c_row)
    a, b, c, start = (builder.inttoptr(x, _F32.as_pointer()) for x in (a, b, c, start))
    last = builder.sub(rows, _number(1))

    def up_to_last(row: int) -> Any:
        """Return the row, or the last one there is: what is computed twice is not stored twice."""
        is_there = builder.icmp_signed("<", _number(row), rows)
        return builder.select(is_there, _number(row), last)

    places = [up_to_last(row) for row in range(ROWS)]
    a_rows = [at(a, builder.mul(place, a_row)) for place in places]
    zeros = ir.Constant(_VECTOR, [0.0] * LANES)
    first = {}
    for row, v in cells:
        offset = builder.add(builder.mul(places[row], start_row), _number(v * LANES))
        first[row, v] = builder.select(has_start, load(vector(start, offset)), zeros)

    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    nowhere = ir.Constant(_VECTOR, ir.Undefined)
    spread = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)

    entry = builder.block
    body, after = builder.append_basic_block("step"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    step = builder.phi(_I64)
    step.add_incoming(_number(0), entry)
    sums = {cell: builder.phi(_VECTOR) for cell in cells}
    for cell, total in sums.items():
        total.add_incoming(first[cell], entry)
    b_place = builder.mul(step, b_row)
    bs = [load(vector(b, builder.add(b_place, _number(v * LANES)))) for v in range(vectors)]
    a_place = builder.mul(step, a_step)
    for row in range(ROWS):
        single = builder.insert_element(
            nowhere, builder.load(at(a_rows[row], a_place)), ir.Constant(ir.IntType(32), 0)
        )
        wide = builder.shuffle_vector(single, nowhere, spread)
        for v in range(vectors):
            total = sums[row, v]
            sums[row, v] = builder.call(fma, [wide, bs[v], total])
            total.add_incoming(sums[row, v], body)
    following = builder.add(step, _number(1))
    step.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, n), body, after)

    builder.position_at_end(after)
    for row in range(ROWS):
        with builder.if_then(builder.icmp_signed("<", _number(row), rows)):
            for v in range(vectors):
                offset = builder.add(builder.mul(_number(row), c_row), _number(v * LANES))
                builder.store(sums[row, v], vector(c, offset)).align = 4
