"""Products of packed operands, and the packing: Goto and van de Geijn's loops around the tile.

Each operand lies in panels in the order in which tiles read it: ``LEFT_PANEL`` rows of the left one
and up to 48 columns of the right one, step after step of the sum. A step is one number, or a pair
of bfloat16 numbers in 32 bits, for which processors have an instruction. ``depth`` steps of a block
of the left operand stay in the second-level cache while panels of the right one pass, and so does
the block of results until all steps are done.

References
----------
Goto, van de Geijn, "Anatomy of high-performance matrix multiplication" (2008); Van Zee, van de
Geijn, "BLIS: a framework for rapidly instantiating BLAS functionality" (2015).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from mlp_xp.backends._numpy.machine_code._intrinsics import jit, pointer
from mlp_xp.backends._numpy.machine_code._tile import make_tile
from mlp_xp.backends._numpy.native.jobs import Pack, PackedProduct, record
from mlp_xp.backends._numpy.native.tuning import TILE_ROWS as ROWS

__all__ = ["make_pack", "make_packed_product"]

_PACK_JOB, _PRODUCT_JOB = record(Pack), record(PackedProduct)
# Columns of the source that are packed together, whole lines of the cache. Rows for panels that are
# less than a line wide: no more than the cache has places for where rows are a power of two apart.
# Steps that a row is packed for at once.
_STRIPE, _ROWS, _WIDE, _STEPS = 96, 8, 16, 64


@jit
def _at_least_one(n):  # type: ignore[no-untyped-def]
    """Return a stride of `range`, which so raises no error."""
    return max(1, n)


@jit
def _part(thread, n_threads, n, multiple):  # type: ignore[no-untyped-def]
    """Return where a thread's part of ``range(n)`` starts, a multiple of a number."""
    return min(n, -(-n // multiple) * thread // n_threads * multiple)


@jit
def _rounded(bits):  # type: ignore[no-untyped-def]
    """Round the bits of a float32 to those of the nearest bfloat16, or the even one of two."""
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint32(0x7FC0) if is_nan else nearest


@jit
def _pair(first, second):  # type: ignore[no-untyped-def]
    return _rounded(first) | (_rounded(second) << np.uint32(16))


def make_pack(is_double: bool, in_pairs: int) -> Any:
    """Return the unit that packs a matrix; threads take panels."""
    word: Any = np.uint64 if is_double else np.uint32
    size, per_step = 8 if is_double else 4, 2 if in_pairs else 1

    @jit
    def by_rows(source, ld, n_sums, n_steps, width, out, low, high):  # type: ignore[no-untyped-def]
        """Pack lanes that are columns of the source: some rows of some panels at a time."""
        stripe = _at_least_one(max(1, _STRIPE // width) * width)
        most = max(1, _ROWS // per_step) if width < _WIDE else 1
        for left in range(low, high, stripe):
            right = min(left + stripe, high)
            for start in range(0, n_steps, most):
                end = min(start + most, n_steps)
                for lane in range(left, right, width):
                    n = min(width, right - lane)
                    for step in range(start, end):
                        row = source + size * (per_step * step * ld + lane)
                        first = carray(pointer(row), n, word)
                        place = out + size * (lane * n_steps + step * width)
                        target = carray(pointer(place), n, word)
                        if not in_pairs:
                            for i in range(n):
                                target[i] = first[i]
                        elif 2 * step + 1 < n_sums:
                            second = carray(pointer(row + size * ld), n, word)
                            for i in range(n):
                                target[i] = _pair(first[i], second[i])
                        else:
                            for i in range(n):
                                target[i] = _rounded(first[i])

    @jit
    def by_columns(source, ld, n_sums, n_steps, width, out, low, high, scratch):  # type: ignore[no-untyped-def]
        """Pack lanes that are rows of the source: some steps of each, then lane by lane."""
        for lane in range(low, high, width):
            n = min(width, high - lane)
            panel = carray(pointer(out + size * lane * n_steps), (n_steps, width), word)
            for start in range(0, n_steps, _STEPS):
                end = min(start + _STEPS, n_steps)
                n_whole = min(end, n_sums // per_step) - start
                block = carray(pointer(scratch), (width, _STEPS), word)
                for i in range(n):
                    place = source + size * ((lane + i) * ld + per_step * start)
                    row = carray(pointer(place), per_step * (n_whole + 1), word)
                    line = block[i]
                    if in_pairs:
                        for step in range(n_whole):
                            line[step] = _pair(row[2 * step], row[2 * step + 1])
                        if start + n_whole < end:
                            line[n_whole] = _rounded(row[2 * n_whole])
                    else:
                        for step in range(n_whole):
                            line[step] = row[step]
                for step in range(end - start):
                    target = panel[start + step]
                    for i in range(n):
                        target[i] = block[i, step]

    def pack(address, thread, n_threads, totals, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _PACK_JOB)[0]
        n_sums, width = job.n_sums, _at_least_one(job.width)
        n_steps = (n_sums + per_step - 1) // per_step
        low = _part(thread, n_threads, job.n_lanes, width)
        high = _part(thread + 1, n_threads, job.n_lanes, width)
        if job.lanes_are_rows:
            by_columns(job.source, job.ld, n_sums, n_steps, width, job.out, low, high, scratch)
        else:
            by_rows(job.source, job.ld, n_sums, n_steps, width, job.out, low, high)

    return pack


def make_packed_product(is_double: bool, in_pairs: int) -> Any:
    """Return the unit for C = A B + bias of packed operands.

    Threads take rows of C, or columns where there are few rows. Each number is the sum of its
    steps, one after the other from the bias on, however C is cut.
    """
    size, tile = 8 if is_double else 4, make_tile(is_double, bool(in_pairs))

    def product(address, thread, n_threads, totals, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _PRODUCT_JOB)[0]
        n_steps, width, n, ldc = job.n_steps, _at_least_one(job.width), job.n, job.ldc
        rows_at_once = _at_least_one(job.rows_at_once)
        columns_at_once, most = _at_least_one(job.columns_at_once), _at_least_one(job.depth)
        top, bottom, left, right = 0, job.m, 0, n
        if job.m >= 2 * ROWS * n_threads:
            top = _part(thread, n_threads, job.m, ROWS)
            bottom = _part(thread + 1, n_threads, job.m, ROWS)
        else:
            left = _part(thread, n_threads, n, width)
            right = _part(thread + 1, n_threads, n, width)
        for j_first in range(left, right, columns_at_once):
            j_end = min(j_first + columns_at_once, right)
            for i_first in range(top, bottom, rows_at_once):
                i_end = min(i_first + rows_at_once, bottom)
                for step in range(0, n_steps, most):
                    depth = min(most, n_steps - step)
                    for j in range(j_first, j_end, width):
                        columns = min(width, n - j)
                        b = job.b + size * (j * n_steps + step * width)
                        bias = job.bias + size * j if job.bias else 0
                        for i in range(i_first, i_end, ROWS):
                            a = job.a + size * (i * n_steps + step * ROWS)
                            c = job.c + size * (i * ldc + j)
                            start, start_row = (c, ldc) if step else (bias, 0)
                            rows = min(ROWS, job.m - i)
                            tile(
                                a, 1, ROWS, rows, b, width, columns, depth, c, ldc, start, start_row
                            )

    return product
