"""The inner kernel of matrix products, which keeps a tile of results in registers.

A BLAS first copies its operands into panels. Copying pays off only if each element is used hundreds
of times; for a batch of 128 rows, it takes a fifth of the time with AVX-512 (with AVX2, it saves
time; see `Tile`). Here, a tile of 8 rows (4 with AVX2) of 3 vectors is kept in registers while
packed or unpacked operands are read (the inner kernel of Goto, van de Geijn, "Anatomy of
high-performance matrix multiplication", 2008). Tiles have 8 rows because batch sizes are multiples
of 8 more often than of 6. If the number of columns is not a multiple of the vector length, each
row's last vector is masked.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import njit, types

from mlp_xp.backends._numpy.machine_code._cpu import find_tile
from mlp_xp.backends._numpy.machine_code._intrinsics import OPTIONS, instruction
from mlp_xp.backends._numpy.machine_code._vectors import Vectors
from mlp_xp.backends._numpy.runtime.tuning import AVX512_TILE

TILE = find_tile() or AVX512_TILE
ROWS, VECTORS, VECTOR_BYTES = TILE.rows, TILE.vectors, TILE.vector_bytes
# AVX2 has no mask registers, and masked loads take twice as long as plain loads.
_HAS_SLOW_MASKS = VECTOR_BYTES < 64
_I64 = ir.IntType(64)
_SIGNATURE = types.void(*[types.int64] * 13)


@cache
def make_tile(is_double: bool, in_pairs: bool = False) -> Any:
    """Return the function that computes a tile; all callers share the function's compiled code.

    With ``in_pairs``, each element of a and b is a pair of bfloat16 numbers along the summed axis,
    and c is in float32.
    """
    number = ir.DoubleType() if is_double else ir.FloatType()

    # Emit LLVM IR, since numba has no vector types.
    @instruction(types.void)
    def emit(builder, a, a_row, a_step, rows, b, b_row, columns, n, c, c_row, start, start_row):  # type: ignore[no-untyped-def]
        arguments = a, a_row, a_step, rows, b, b_row, columns, n, c, c_row, start, start_row
        vectors = Vectors(builder, number, VECTOR_BYTES)
        for n_vectors in range(1, VECTORS + 1):
            # The compiler must know the number of registers, so each width has its own loop.
            most = _I64(n_vectors * vectors.lanes)
            is_wider = builder.icmp_signed(">", columns, _I64((n_vectors - 1) * vectors.lanes))
            is_whole = builder.icmp_signed("==", columns, most)
            fits = builder.icmp_signed("<=", columns, most)
            with builder.if_then(builder.and_(is_wider, fits)):
                if not _HAS_SLOW_MASKS:
                    _loop(vectors, arguments, n_vectors, in_pairs)
                    continue
                with builder.if_else(is_whole) as (whole, part):
                    with whole:
                        _loop(vectors, arguments, n_vectors, in_pairs, is_whole=True)
                    with part:
                        _loop(vectors, arguments, n_vectors, in_pairs)

    @njit(_SIGNATURE, **OPTIONS)
    def tile(  # type: ignore[no-untyped-def]
        a, a_row, a_step, rows, b, b_row, columns, n, c, c_row, start, start_row, scratch
    ):
        """Set ``c[r, j] = start[r, j] + sum_s a[r, s] b[s, j]`` for ``rows`` rows, at most `ROWS`.

        ``columns`` must fit in 1 to 3 vectors, and ``n``, the length of the sums, is at least 1. a,
        b, c and start are addresses. Strides are in elements: ``a[r, s]`` has offset ``r * a_row +
        s
        * a_step``, row ``s`` of b has offset ``s * b_row``, and so on. ``start`` may be ``c``, or 0
        to start from zeros. Only AMX needs ``scratch``.
        """
        emit(a, a_row, a_step, rows, b, b_row, columns, n, c, c_row, start, start_row)

    return tile


def _loop(
    vectors: Vectors, arguments: Any, n_vectors: int, in_pairs: bool, is_whole: bool = False
) -> None:
    """Compute a tile that is ``n_vectors`` wide; the last vector may be incomplete."""
    a, a_row, a_step, rows, b, b_row, columns, n, c, c_row, start, start_row = arguments
    builder, wide = vectors.builder, vectors.kind
    multiply_add = vectors.multiply_add_pairs if in_pairs else vectors.multiply_add
    cells = [(row, v) for row in range(ROWS) for v in range(n_vectors)]
    n_last = builder.sub(columns, _I64((n_vectors - 1) * vectors.lanes))
    mask = None if is_whole else vectors.mask(n_last)

    def at(pointer: Any, offset: Any, v: int = 0) -> Any:
        return builder.gep(pointer, [builder.add(offset, _I64(v * vectors.lanes))])

    def load(pointer: Any, offset: Any, v: int) -> Any:
        return vectors.load(at(pointer, offset, v), mask if v == n_vectors - 1 else None)

    has_start = builder.icmp_signed("!=", start, _I64(0))
    # If start is 0, read c instead, and ignore the values.
    start = builder.select(has_start, start, c)
    start_row = builder.select(has_start, start_row, c_row)
    pointers = (builder.inttoptr(x, vectors.number.as_pointer()) for x in (a, b, c, start))
    a, b, c, start = pointers
    last = builder.sub(rows, _I64(1))

    def up_to_last(row: int) -> Any:
        """Return the row, or the last row if ``row`` does not exist."""
        is_there = builder.icmp_signed("<", _I64(row), rows)
        return builder.select(is_there, _I64(row), last)

    places = [up_to_last(row) for row in range(ROWS)]
    a_rows = [at(a, builder.mul(place, a_row)) for place in places]
    first = {}
    for row, v in cells:
        loaded = load(start, builder.mul(places[row], start_row), v)
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
    bs = [load(b, b_place, v) for v in range(n_vectors)]
    a_place = builder.mul(step, a_step)
    for row in range(ROWS):
        repeated = vectors.repeat(builder.load(at(a_rows[row], a_place)))
        for v in range(n_vectors):
            total = sums[row, v]
            sums[row, v] = multiply_add(repeated, bs[v], total)
            total.add_incoming(sums[row, v], body)
    following = builder.add(step, _I64(1))
    step.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, n), body, after)

    builder.position_at_end(after)
    # On some processors, masked stores take ten times as long as plain stores.
    has_all = builder.icmp_signed("==", n_last, _I64(vectors.lanes))
    for row in range(ROWS):
        with builder.if_then(builder.icmp_signed("<", _I64(row), rows)):
            c_place = builder.mul(_I64(row), c_row)
            for v in range(n_vectors - 1):
                vectors.store(sums[row, v], at(c, c_place, v))
            last_sums, place = sums[row, n_vectors - 1], at(c, c_place, n_vectors - 1)
            with builder.if_else(has_all) as (whole, part):
                with whole:
                    vectors.store(last_sums, place)
                with part:
                    vectors.store(last_sums, place, mask)
