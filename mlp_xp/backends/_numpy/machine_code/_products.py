"""Matrix products of one thread: our own where they are faster, else those of SciPy's BLAS."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from mlp_xp.backends._numpy.machine_code._cpu import has_tile
from mlp_xp.backends._numpy.machine_code._intrinsics import jit, pointer, start_of
from mlp_xp.backends._numpy.machine_code._tile import make_tile
from mlp_xp.backends._numpy.native.jobs import Product, record
from mlp_xp.backends._numpy.native.tuning import (
    LARGEST_RIGHT,
    LEAST_COLUMNS,
    LEAST_TILED,
    SAMPLES_AT_ONCE,
    SCRATCH,
)
from mlp_xp.backends._numpy.native.tuning import TILE_ROWS as ROWS
from mlp_xp.backends._numpy.native.tuning import TILE_VECTORS as VECTORS

__all__ = ["add_parts", "by_columns", "make_product", "make_tiled"]

_PRODUCT_JOB = record(Product)

# Rows of the right operand that stay in the cache while all rows of the left one pass.
_DEPTH_NN = 512
_HAS_TILE = has_tile()
_NONE: Any = (None, None)  # In place of what is never called.

_I32, _I64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()


def _make_blas(kind: Any) -> Any:
    """Return a function that calls Fortran's xGEMM at an address, for an LLVM number type."""

    @intrinsic
    def blas(context, routine, ta, tb, m, n, k, a, lda, b, ldb, c, ldc):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            routine, ta, tb, m, n, k, a, lda, b, ldb, c, ldc = arguments

            # All arguments are pointers.
            def place(value: Any, kind: Any) -> Any:
                slot = cgutils.alloca_once(builder, kind)
                builder.store(value, slot)
                return builder.bitcast(slot, cgutils.voidptr_t)

            def letter(is_transposed: Any) -> Any:
                byte = ir.IntType(8)
                chosen = builder.select(
                    builder.icmp_signed("!=", is_transposed, ir.Constant(_I64, 0)),
                    ir.Constant(byte, ord("T")),
                    ir.Constant(byte, ord("N")),
                )
                return place(chosen, byte)

            def size(value: Any) -> Any:
                return place(builder.trunc(value, _I32), _I32)

            def address(value: Any) -> Any:
                return builder.inttoptr(value, cgutils.voidptr_t)

            function = builder.inttoptr(
                routine, ir.FunctionType(_VOID, [cgutils.voidptr_t] * 13).as_pointer()
            )
            one, zero = place(ir.Constant(kind, 1.0), kind), place(ir.Constant(kind, 0.0), kind)
            settings = [letter(ta), letter(tb), size(m), size(n), size(k)]
            operands = [one, address(a), size(lda), address(b), size(ldb)]
            result = [zero, address(c), size(ldc)]
            builder.call(function, [*settings, *operands, *result])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), generate

    return blas


@jit
def _add_rows(c, row):  # type: ignore[no-untyped-def]
    for i in range(c.size):
        c[i] += row[i]


@cache
def make_tiled(is_double: bool) -> tuple[Any, Any]:
    """Return our own products C = A B + bias and C = A^T B."""
    size, tile = 8 if is_double else 4, make_tile(is_double)
    lanes = 64 // size

    @jit
    def tiles_across(n):  # type: ignore[no-untyped-def]
        """Return how many tiles hold n columns, and their width; the last may be narrower."""
        n_vectors = (n + lanes - 1) // lanes
        n_tiles = (n_vectors + VECTORS - 1) // VECTORS
        return n_tiles, (n_vectors + n_tiles - 1) // n_tiles * lanes

    @jit
    def nn(a, lda, b, ldb, c, ldc, bias, m, n, k):  # type: ignore[no-untyped-def]
        n_tiles, width = tiles_across(n)
        for first in range(0, k, _DEPTH_NN):
            depth = min(_DEPTH_NN, k - first)
            for number in range(n_tiles):
                j = number * width
                columns = min(width, n - j)
                right = b + size * (first * ldb + j)
                for i in range(0, m, ROWS):
                    left, here = a + size * (i * lda + first), c + size * (i * ldc + j)
                    start, step = (here, ldc) if first else (bias + size * j if bias else 0, 0)
                    rows = min(ROWS, m - i)
                    tile(left, lda, 1, rows, right, ldb, columns, depth, here, ldc, start, step)

    @jit
    def tn(a, lda, b, ldb, c, m, n, k):  # type: ignore[no-untyped-def]
        n_tiles, width = tiles_across(n)
        for first in range(0, k, SAMPLES_AT_ONCE):
            samples = min(SAMPLES_AT_ONCE, k - first)
            for i in range(0, m, ROWS):
                rows, left = min(ROWS, m - i), a + size * (first * lda + i)
                for number in range(n_tiles):
                    j = number * width
                    right, here = b + size * (first * ldb + j), c + size * (i * n + j)
                    start, columns = here if first else 0, min(width, n - j)
                    tile(left, 1, lda, rows, right, ldb, columns, samples, here, n, start, n)

    return nn, tn


@jit
def by_columns(width, n_threads):  # type: ignore[no-untyped-def]
    """Whether each thread takes columns of a batch of such rows, and not rows."""
    return n_threads > 1 and width >= LEAST_COLUMNS * n_threads


@jit
def _splits_depth(job, n_threads):  # type: ignore[no-untyped-def]
    """Whether each thread multiplies its columns of A by its rows of B.

    They are in its cache: it gathers these columns, and updates these rows of the weights.
    """
    is_ours = _HAS_TILE and not job.is_double and not job.transpose_a and not job.transpose_b
    is_ours = is_ours and job.n >= LEAST_TILED
    fits = 4 * job.m * job.n <= SCRATCH and job.ldc == job.n
    is_longest = job.k > max(job.m, job.n)
    return is_ours and fits and is_longest and by_columns(job.k, n_threads)


@jit
def add_parts(address, n_threads, scratch):  # type: ignore[no-untyped-def]
    """Add the parts of a product whose depth was split, once all threads are done."""
    job = carray(pointer(address), 1, _PRODUCT_JOB)[0]
    if _splits_depth(job, n_threads):
        total = carray(pointer(job.c), job.m * job.n, np.float32)
        for thread in range(1, n_threads):
            _add_rows(total, carray(pointer(scratch + thread * SCRATCH), total.size, np.float32))


def make_product(is_double: bool, _: int = 0) -> Any:
    """Return the unit for C = A B + bias. Its longest side is split between the threads."""
    number, size = (np.float64, 8) if is_double else (np.float32, 4)
    blas = _make_blas(ir.DoubleType() if is_double else ir.FloatType())
    tiles = _HAS_TILE
    nn, tn = make_tiled(is_double) if tiles else _NONE

    def product(address, thread, n_threads, totals, scratch):  # type: ignore[no-untyped-def]
        job = carray(pointer(address), 1, _PRODUCT_JOB)[0]
        ta, tb, m, n, k = job.transpose_a, job.transpose_b, job.m, job.n, job.k
        a, lda, b, ldb, c, ldc, bias = job.a, job.lda, job.b, job.ldb, job.c, job.ldc, job.bias
        if tiles and _splits_depth(job, n_threads):
            low, high = start_of(thread, n_threads, k), start_of(thread + 1, n_threads, k)
            if thread > 0:  # See `add_parts`.
                c, bias = scratch, 0
            nn(a + 4 * low, lda, b + 4 * low * ldb, ldb, c, ldc, bias, m, n, high - low)
            return
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
        if tiles and not tb and n >= LEAST_TILED:
            if not ta:
                nn(a, lda, b, ldb, c, ldc, bias, m, n, k)
                return
            if size * min(k, SAMPLES_AT_ONCE) * n <= LARGEST_RIGHT and ldc == n:
                tn(a, lda, b, ldb, c, m, n, k)
                return
        # Read by columns, as Fortran does, each matrix is its transpose, and so is the product.
        blas(job.blas, tb, ta, n, m, k, b, ldb, a, lda, c, ldc)
        if bias:
            row = carray(pointer(bias), n, number)
            for i in range(m):
                _add_rows(carray(pointer(c + i * ldc * size), n, number), row)

    return product
