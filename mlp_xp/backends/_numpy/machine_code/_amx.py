"""Compute matrix products with AMX, in blocks of 32 x 32 results in four tile registers.

A tile register has 16 rows of 64 bytes. Two tiles of A (16 rows of 16 pairs) are multiplied by two
tiles of B (16 pairs for 16 columns). See Intel, "Software Developer's Manual", volume 2, TDPBF16PS.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from mlp_xp.backends._numpy.machine_code._intrinsics import call_function, copy, instruction, jit
from mlp_xp.backends._numpy.runtime.tuning import AMX_TILE

_I8, _I64 = ir.IntType(8), ir.IntType(64)
_HIGH, _WIDE = AMX_TILE.rows, AMX_TILE.vectors * 16
# The tile configuration: palette 1, start row 0, then the bytes per row of each tile (as 16-bit
# integers), then the number of rows of each tile.
_SETTINGS = bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8])


def emit(builder: Any, work_space: Any, name: str, tiles: tuple[int, ...], *memory: Any) -> None:
    """Emit an AMX instruction, given its tile numbers, an address, and the stride between rows.

    ``work_space`` belongs to the thread. On processors without AMX, tests replace this function by
    a simulator.
    """
    values = [_I8(tile) for tile in tiles]
    if memory:
        address, *distance = memory
        values += [builder.inttoptr(address, cgutils.voidptr_t), *distance]
    call_function(builder, f"llvm.x86.{name}", ir.VoidType(), *values)


@instruction(types.void)
def configure(builder, work_space):  # type: ignore[no-untyped-def]
    """Configure the thread's tiles."""
    kind = ir.ArrayType(_I8, len(_SETTINGS))
    constant = ir.Constant(kind, bytearray(_SETTINGS))
    settings = cgutils.global_constant(builder, "amx_settings", constant)
    emit(builder, work_space, "ldtilecfg", (), builder.ptrtoint(settings, _I64))


@instruction(types.void)
def release(builder, work_space):  # type: ignore[no-untyped-def]
    """Release the thread's tiles."""
    emit(builder, work_space, "tilerelease", ())


@instruction(types.void)
def _clear(builder, work_space):  # type: ignore[no-untyped-def]
    for tile in range(4):
        emit(builder, work_space, "tilezero", (tile,))


def _transfer(name: str) -> Any:
    """Return the function that loads or stores a 32 x 32 block.

    Tiles 0 and 1 contain the upper 16 rows.
    """

    @instruction(types.void)
    def transfer(builder, place, distance, work_space):  # type: ignore[no-untyped-def]
        lower = builder.add(place, builder.mul(distance, _I64(16)))
        for tile, row in ((0, place), (2, lower)):
            emit(builder, work_space, name, (tile,), row, distance)
            right = builder.add(row, _I64(64))
            emit(builder, work_space, name, (tile + 1,), right, distance)

    return transfer


_load, _store = map(_transfer, ("tileloadd64", "tilestored64"))


@instruction(types.void)
def _multiply(builder, a, a_lower, b, b_right, distance, work_space):  # type: ignore[no-untyped-def]
    """Add products of 16 pairs to tiles 0 to 3; ``distance`` is the stride between rows of b."""
    write = partial(emit, builder, work_space)
    write("tileloadd64", (4,), a, _I64(64))
    write("tileloadd64", (6,), b, distance)
    write("tdpbf16ps", (0, 4, 6))
    write("tileloadd64", (7,), b_right, distance)
    write("tdpbf16ps", (1, 4, 7))
    write("tileloadd64", (5,), a_lower, _I64(64))
    write("tdpbf16ps", (2, 5, 6))
    write("tdpbf16ps", (3, 5, 7))


def make_amx() -> Any:
    """Return the function that computes a block of a product; tiles must be configured."""

    @jit
    def block(  # type: ignore[no-untyped-def]
        a, a_row, a_step, rows, b, b_row, columns, n, c, c_row, start, start_row, scratch
    ):
        """Compute a product with up to 32 rows and columns, like the function from `make_tile`.

        ``n`` is a multiple of 16. A block with fewer rows or columns is padded to 32 in the work
        space; the padding repeats rows of A or columns of B.
        """
        is_whole = rows == _HIGH and columns == _WIDE
        if start == 0:
            _clear(scratch)
        elif is_whole:
            _load(start, 4 * start_row, scratch)
        else:
            for i in range(rows):
                copy(start + 4 * i * start_row, scratch + 4 * i * _WIDE, columns)
            _load(scratch, 4 * _WIDE, scratch)
        down, across = 64 * a_row if rows > 16 else 0, 64 if columns > 16 else 0
        for step in range(0, n, 16):
            left, right = a + 4 * step * a_step, b + 4 * step * b_row
            _multiply(left, left + down, right, right + across, 4 * b_row, scratch)
        if is_whole:
            _store(c, 4 * c_row, scratch)
        else:
            _store(scratch, 4 * _WIDE, scratch)
            for i in range(rows):
                copy(scratch + 4 * i * _WIDE, c + 4 * i * c_row, columns)

    return block
