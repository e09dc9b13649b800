"""AMX's instructions in NumPy, as Intel's manual defines them (volume 2, chapter 4)."""

import ctypes

import numpy as np
from numpy.lib.stride_tricks import as_strided

INSTRUCTIONS = ["ldtilecfg", "tilerelease", "tilezero", "tileloadd64", "tilestored64", "tdpbf16ps"]
TINY = np.finfo(np.float32).tiny
TILES = {}  # Each thread's tiles, by its work space.


def no_subnormals(x):
    return np.where(np.abs(x) < TINY, np.float32(0), x)


def add_products(total, a, b):
    """Add products (2, m, k) by (2, k, n), all first numbers of pairs apart from all second ones.

    Each is added by a fused operation. In float64 the sum is exact, or far from a tie.
    """
    a, b, sums = no_subnormals(a).astype("f8"), no_subnormals(b), np.zeros((2, *total.shape), "f4")
    for k in range(a.shape[2]):
        sums = no_subnormals((sums + a[:, :, k, None] * b[:, k, None]).astype("f4"))
    return no_subnormals(no_subnormals(total) + no_subnormals(sums[0] + sums[1]))


def execute(space, code, tile, a, b, address, distance):
    name, tiles = INSTRUCTIONS[code], TILES.get(space)
    if name == "ldtilecfg":
        given = ctypes.string_at(address, 64)  # Eight tiles of 64 bytes by 16 rows.
        is_known = given == bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8])
        TILES[space] = np.zeros((8, 16, 16) if is_known else 0, np.uint32)
    elif name == "tilerelease":
        del TILES[space]
    elif name == "tilezero":
        tiles[tile] = 0
    elif name == "tdpbf16ps":
        a, b = (np.stack((x << 16, x & 0xFFFF0000)).view("f4") for x in (tiles[a], tiles[b]))
        with np.errstate(all="ignore"):  # Rows past the last hold whatever was in memory.
            tiles[tile] = add_products(tiles[tile].view("f4"), a, b).view("u4")
    else:
        row = np.ctypeslib.as_array((ctypes.c_uint32 * 16).from_address(address))
        rows = as_strided(row, (16, 16), (distance, 4))
        target, source = (tiles[tile], rows) if name == "tileloadd64" else (rows, tiles[tile])
        target[...] = source


CALLBACK = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 7)(execute)


def emit(builder, space, name, tiles, *memory):
    """Write a call of `execute` in place of an instruction."""
    from llvmlite import ir

    word, code = ir.IntType(64), INSTRUCTIONS.index(name)
    values = [space, *map(word, (code, *tiles, *[0] * (3 - len(tiles))))]
    values += [*memory, *[word(0)] * (2 - len(memory))]
    kind = ir.FunctionType(ir.VoidType(), [word] * 7).as_pointer()
    builder.call(builder.inttoptr(word(ctypes.cast(CALLBACK, ctypes.c_void_p).value), kind), values)
