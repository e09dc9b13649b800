"""Blocks of matrix products with AMX: 32 x 32 results in four tile registers.

A tile register has 16 rows of 64 bytes. Two tiles of A (16 rows of 16 pairs) are multiplied by two
tiles of B (16 pairs for 16 columns). See Intel, "Software Developer's Manual", volume 2, TDPBF16PS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import Parameter, Signature, signature
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mlp_xp.backends._numpy.machine_code._intrinsics import copy, jit
from mlp_xp.backends._numpy.native.tuning import AMX_TILE

__all__ = ["emit", "make_amx"]

_I8, _I64 = ir.IntType(8), ir.IntType(64)
_HIGH, _WIDE = AMX_TILE.rows, AMX_TILE.vectors * 16
# The tile configuration: palette 1, start row 0, then the bytes per row of each tile (as 16-bit
# numbers), then the number of rows of each tile.
_SETTINGS = bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8])


def emit(
    context: Any, builder: Any, work_space: Any, name: str, tiles: tuple[int, ...], *memory: Any
) -> None:
    """Emit an AMX instruction, given its tile numbers, an address, and the stride between rows.

    On processors without AMX, tests replace this function by calls of a simulator.
    """
    values = [_I8(tile) for tile in tiles]
    if memory:
        address, *distance = memory
        values += [builder.inttoptr(address, cgutils.voidptr_t), *distance]
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")
    builder.call(function, values)


def _configure(write: Any, builder: Any) -> None:
    kind = ir.ArrayType(_I8, len(_SETTINGS))
    constant = ir.Constant(kind, bytearray(_SETTINGS))
    settings = cgutils.global_constant(builder, "amx_settings", constant)
    write("ldtilecfg", (), builder.ptrtoint(settings, _I64))


def _release(write: Any, builder: Any) -> None:
    write("tilerelease", ())


def _clear(write: Any, builder: Any) -> None:
    for tile in range(4):
        write("tilezero", (tile,))


def _transfer(name: str, write: Any, builder: Any, place: Any, distance: Any) -> None:
    """Load or store 32 rows of 32 numbers; tiles 0 and 1 contain the upper 16 rows."""
    lower = builder.add(place, builder.mul(distance, _I64(16)))
    for tile, row in ((0, place), (2, lower)):
        write(name, (tile,), row, distance)
        write(name, (tile + 1,), builder.add(row, _I64(64)), distance)


def _multiply(
    write: Any, builder: Any, a: Any, a_lower: Any, b: Any, b_right: Any, distance: Any
) -> None:
    """Add products of 16 pairs to tiles 0 to 3; ``distance`` is the stride between rows of b."""
    write("tileloadd64", (4,), a, _I64(64))
    write("tileloadd64", (6,), b, distance)
    write("tdpbf16ps", (0, 4, 6))
    write("tileloadd64", (7,), b_right, distance)
    write("tdpbf16ps", (1, 4, 7))
    write("tileloadd64", (5,), a_lower, _I64(64))
    write("tdpbf16ps", (2, 5, 6))
    write("tdpbf16ps", (3, 5, 7))


def make_amx() -> tuple[Any, Any, Any]:
    """Return functions that configure a thread's tiles, compute a block, and release the tiles.

    The last argument of each function is the thread's work space.
    """

    def function(generator: Callable[..., None]) -> Any:
        def run(context, *arguments):  # type: ignore[no-untyped-def]
            def generate(context, builder, _, values):  # type: ignore[no-untyped-def]
                *given, work_space = values
                generator(partial(emit, context, builder, work_space), builder, *given)
                return context.get_dummy_value()

            return types.void(*arguments), generate

        # Numba needs named arguments instead of ``*arguments``.
        names = ("context", *[*signature(generator).parameters][2:], "work_space")
        given = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        run.__signature__ = Signature(given)  # type: ignore[attr-defined]
        return intrinsic(run)

    clear, multiply = function(_clear), function(_multiply)
    load, store = (function(partial(_transfer, name)) for name in ("tileloadd64", "tilestored64"))

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
            clear(scratch)
        elif is_whole:
            load(start, 4 * start_row, scratch)
        else:
            for i in range(rows):
                copy(start + 4 * i * start_row, scratch + 4 * i * _WIDE, columns)
            load(scratch, 4 * _WIDE, scratch)
        down, across = 64 * a_row if rows > 16 else 0, 64 if columns > 16 else 0
        for step in range(0, n, 16):
            left, right = a + 4 * step * a_step, b + 4 * step * b_row
            multiply(left, left + down, right, right + across, 4 * b_row, scratch)
        if is_whole:
            store(c, 4 * c_row, scratch)
        else:
            store(scratch, 4 * _WIDE, scratch)
            for i in range(rows):
                copy(scratch + 4 * i * _WIDE, c + 4 * i * c_row, columns)

    return function(_configure), block, function(_release)
