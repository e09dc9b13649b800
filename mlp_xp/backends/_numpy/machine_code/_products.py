"""Matrix products in our own tiled code, or with SciPy's BLAS on processors without AVX2."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils

from mlp_xp.backends._numpy.machine_code._amx import configure, make_amx, release
from mlp_xp.backends._numpy.machine_code._intrinsics import (
    at_least_one,
    instruction,
    jit,
    part_of,
    pointer,
    start_of,
)
from mlp_xp.backends._numpy.machine_code._tile import ROWS, VECTOR_BYTES, VECTORS, make_tile
from mlp_xp.backends._numpy.runtime.tasks import (
    AMX,
    FEW_ROWS,
    MAY_SPLIT_STEPS,
    Product,
    TiledProduct,
    record,
)
from mlp_xp.backends._numpy.runtime.tuning import AMX_TILE, LEAST_COLUMNS, SCRATCH

_PRODUCT_TASK, _TILED_TASK = record(Product), record(TiledProduct)

_I8, _I32, _I64 = map(ir.IntType, (8, 32, 64))


def _make_blas(kind: Any) -> Any:
    """Return a function that calls Fortran's SGEMM or DGEMM at an address."""

    @instruction(types.void)
    def blas(builder, routine, ta, tb, m, n, k, a, lda, b, ldb, c, ldc):  # type: ignore[no-untyped-def]
        # Fortran takes all arguments by address.
        def place(value: Any) -> Any:
            slot = cgutils.alloca_once_value(builder, value)
            return builder.bitcast(slot, cgutils.voidptr_t)

        def letter(is_transposed: Any) -> Any:
            is_true = builder.icmp_signed("!=", is_transposed, _I64(0))
            return place(builder.select(is_true, _I8(ord("T")), _I8(ord("N"))))

        def size(value: Any) -> Any:
            return place(builder.trunc(value, _I32))

        def address(value: Any) -> Any:
            return builder.inttoptr(value, cgutils.voidptr_t)

        function = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t] * 13).as_pointer()
        one, zero = place(kind(1.0)), place(kind(0.0))
        settings = [letter(ta), letter(tb), size(m), size(n), size(k)]
        operands = [one, address(a), size(lda), address(b), size(ldb)]
        result = [zero, address(c), size(ldc)]
        builder.call(builder.inttoptr(routine, function), [*settings, *operands, *result])

    return blas


@jit
def _add_rows(c, row):  # type: ignore[no-untyped-def]
    for i in range(c.size):
        c[i] += row[i]


@jit
def by_columns(width, n_threads):  # type: ignore[no-untyped-def]
    """Whether threads divide a batch with rows of this width by columns."""
    return n_threads > 1 and width >= LEAST_COLUMNS * n_threads


@jit
def _splits_steps(task, n_threads):  # type: ignore[no-untyped-def]
    """Whether each thread multiplies some columns of A by the corresponding rows of B.

    These columns and rows are in the thread's cache, since the thread has gathered or updated them.
    """
    return task.way == MAY_SPLIT_STEPS and by_columns(task.n_steps, n_threads)


@jit
def add_parts(address, n_threads, scratch):  # type: ignore[no-untyped-def]
    """Add the threads' partial results of a product whose sums were split."""
    task = carray(pointer(address), 1, _TILED_TASK)[0]
    if _splits_steps(task, n_threads):
        total = carray(pointer(task.c), task.m * task.n, np.float32)
        for thread in range(1, n_threads):
            _add_rows(total, carray(pointer(scratch + thread * SCRATCH), total.size, np.float32))


@cache
def _make_tile_width(is_double: bool) -> Any:
    lanes = VECTOR_BYTES // (8 if is_double else 4)

    @jit
    def tile_width(n):  # type: ignore[no-untyped-def]
        """Return the number of columns per tile that makes all tiles equally wide."""
        n_vectors = (n + lanes - 1) // lanes
        n_tiles = at_least_one((n_vectors + VECTORS - 1) // VECTORS)
        return at_least_one((n_vectors + n_tiles - 1) // n_tiles) * lanes

    return tile_width


@cache
def make_gradient(is_double: bool) -> Any:
    """Return the function that computes rows of C = A^T B.

    B is packed in panels of ``panel`` columns, or not packed if ``panel`` is 0.
    """
    size, tile, tile_width = (
        8 if is_double else 4,
        make_tile(is_double),
        _make_tile_width(is_double),
    )

    @jit
    def gradient(a, lda, b, panel, c, rows, n, k):  # type: ignore[no-untyped-def]
        width = at_least_one(panel if panel else tile_width(n))
        b_row = width if panel else n
        for j in range(0, n, width):
            columns, b_panel = min(width, n - j), b + size * j * (k if panel else 1)
            for i in range(0, rows, ROWS):
                high, place = min(ROWS, rows - i), c + size * (i * n + j)
                tile(a + size * i, 1, lda, high, b_panel, b_row, columns, k, place, n, 0, n, 0)

    return gradient


@cache
def _make_few_rows(is_double: bool) -> Any:
    """Return the function for a C with few rows, which reads B only once."""
    number, size = (np.float64, 8) if is_double else (np.float32, 4)

    @jit
    def few_rows(task, left, right):  # type: ignore[no-untyped-def]
        """Write columns of C; if B is transposed, each element is the dot product of two rows."""
        n = right - left
        for i in range(task.m):
            c = carray(pointer(task.c + size * (i * task.ldc + left)), n, number)
            c[:] = 0
            if task.bias:
                _add_rows(c, carray(pointer(task.bias + size * left), n, number))
            if task.b_step == 1:
                x = carray(pointer(task.a + size * i * task.a_row), task.n_steps, number)
                for j in range(n):
                    place = task.b + size * (left + j) * task.b_column
                    c[j] += _dot(x, carray(pointer(place), task.n_steps, number))
        if task.b_step != 1:
            for step in range(task.n_steps):
                row = carray(pointer(task.b + size * (step * task.b_step + left)), n, number)
                for i in range(task.m):
                    place = task.a + size * (i * task.a_row + step)
                    c = carray(pointer(task.c + size * (i * task.ldc + left)), n, number)
                    _add_multiple(c, carray(pointer(place), 1, number)[0], row)

    return few_rows


@jit
def _dot(x, y):  # type: ignore[no-untyped-def]
    total = x.dtype.type(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@jit
def _add_multiple(c, factor, row):  # type: ignore[no-untyped-def]
    for i in range(c.size):
        c[i] += factor * row[i]


def make_tiled_product(is_double: bool, in_pairs: int) -> Any:
    """Return the unit for C = A B + bias in tiles, with the loops of Goto and van de Geijn (2008).

    Threads divide the rows or columns of C. The order of summation, starting with the bias, does
    not depend on how threads divide C.
    """
    size, tile_rows, is_amx = 8 if is_double else 4, ROWS, in_pairs == AMX
    if is_amx:
        tile_rows, tile = AMX_TILE.rows, make_amx()
    else:
        tile = make_tile(is_double, bool(in_pairs))
    tile_width, few_rows = _make_tile_width(is_double), _make_few_rows(is_double)

    def product(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        task = carray(pointer(address), 1, _TILED_TASK)[0]
        c, ldc, bias, width, n = task.c, task.ldc, task.bias, task.width, task.n
        top, bottom, left, right, low, high = 0, task.m, 0, n, 0, task.n_steps
        if _splits_steps(task, n_threads):
            low, high = start_of(thread, n_threads, high), start_of(thread + 1, n_threads, high)
            if thread > 0:  # `add_parts` adds this part later.
                c, bias = scratch, 0
        elif task.way == FEW_ROWS or (
            (task.m <= n) if width == 0 else (task.m < 2 * tile_rows * n_threads)
        ):
            multiple = width if width else 16
            left = part_of(thread, n_threads, n, multiple)
            right = part_of(thread + 1, n_threads, n, multiple)
        else:
            top = part_of(thread, n_threads, task.m, tile_rows)
            bottom = part_of(thread + 1, n_threads, task.m, tile_rows)
        if task.way == FEW_ROWS:
            few_rows(task, left, right)
            return
        width = at_least_one(width if width else tile_width(right - left))
        steps_at_once, depth = at_least_one(task.steps_at_once), at_least_one(task.depth)
        rows_at_once = at_least_one(task.rows_at_once)
        columns_at_once = max(width, task.columns_at_once)
        for first in range(low, high, steps_at_once):
            last = min(first + steps_at_once, high)
            for j_first in range(left, right, columns_at_once):
                j_end = min(j_first + columns_at_once, right)
                for i_first in range(top, bottom, rows_at_once):
                    i_end = min(i_first + rows_at_once, bottom)
                    for step in range(first, last, depth):
                        n_steps, is_first = min(depth, last - step), step == low
                        for j in range(j_first, j_end, width):
                            columns = min(width, right - j)
                            b = task.b + size * (j * task.b_column + step * task.b_step)
                            row = bias + size * j if bias else 0
                            for i in range(i_first, i_end, tile_rows):
                                a = task.a + size * (i * task.a_tile + step * task.a_step)
                                place = c + size * (i * ldc + j)
                                start, start_row = (row, 0) if is_first else (place, ldc)
                                tile(
                                    a,
                                    task.a_row,
                                    task.a_step,
                                    min(tile_rows, i_end - i),
                                    b,
                                    task.b_step,
                                    columns,
                                    n_steps,
                                    place,
                                    ldc,
                                    start,
                                    start_row,
                                    scratch,
                                )

    if not is_amx:
        return product
    blocks = jit(product)

    def product_of_tiles(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        configure(scratch)
        blocks(address, thread, n_threads, scratch)
        release(scratch)

    return product_of_tiles


def make_product(is_double: bool, _: int = 0) -> Any:
    """Return the unit for C = A B + bias with the BLAS; threads divide C's longer axis."""
    number, size = (np.float64, 8) if is_double else (np.float32, 4)
    blas = _make_blas(ir.DoubleType() if is_double else ir.FloatType())

    def product(address, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
        task = carray(pointer(address), 1, _PRODUCT_TASK)[0]
        ta, tb, m, n, k = task.transpose_a, task.transpose_b, task.m, task.n, task.k
        a, lda, b, ldb, c, ldc, bias = (
            task.a,
            task.lda,
            task.b,
            task.ldb,
            task.c,
            task.ldc,
            task.bias,
        )
        if m > n:
            low, high = start_of(thread, n_threads, m), start_of(thread + 1, n_threads, m)
            a += low * size * (1 if ta else lda)
            c += low * size * ldc
            m = high - low
        else:
            low, high = start_of(thread, n_threads, n), start_of(thread + 1, n_threads, n)
            b += low * size * (ldb if tb else 1)
            c += low * size
            bias += low * size if bias else 0
            n = high - low
        if m == 0 or n == 0:
            return
        # Fortran reads each matrix as its transpose, so compute C^T = B^T A^T.
        blas(task.blas, tb, ta, n, m, k, b, ldb, a, lda, c, ldc)
        if bias:
            row = carray(pointer(bias), n, number)
            for i in range(m):
                _add_rows(carray(pointer(c + i * ldc * size), n, number), row)

    return product
