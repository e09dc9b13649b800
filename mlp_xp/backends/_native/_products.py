"""Matrix products of one thread: our own where they are faster, else those of SciPy's BLAS."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

from mlp_xp.backends._jobs import LARGEST_RIGHT, SAMPLES_AT_ONCE
from mlp_xp.backends._native._tile import COLUMNS, ROWS, has_tile, tile
from mlp_xp.backends._native._words import jit, pointer, share

__all__ = ["gemm", "routines", "tn"]

# Rows of the right operand that stay in the cache while all rows of the left one pass.
_DEPTH_NN = 512

_I32, _I64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()


@cache
def routines() -> np.ndarray:
    """Give where SGEMM and DGEMM are, and whether there is the tile; no compiled code knows."""
    module = "scipy.linalg.cython_blas"
    addresses = [get_cython_function_address(module, name) for name in ("sgemm", "dgemm")]
    return np.asarray([*addresses, has_tile()], dtype=np.int64)


@intrinsic
def _blas(context, routine, is_double, ta, tb, m, n, k, a, lda, b, ldb, c, ldc):  # type: ignore[no-untyped-def]
    """Call Fortran's xGEMM at an address: all arguments are pointers."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        routine, is_double, ta, tb, m, n, k, a, lda, b, ldb, c, ldc = arguments

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
        letters, sizes = [letter(ta), letter(tb)], [size(m), size(n), size(k)]
        double = builder.icmp_signed("!=", is_double, ir.Constant(_I64, 0))
        with builder.if_else(double) as branches:
            for branch, kind in zip(branches, (ir.DoubleType(), ir.FloatType()), strict=True):
                with branch:
                    one = place(ir.Constant(kind, 1.0), kind)
                    zero = place(ir.Constant(kind, 0.0), kind)
                    operands = [one, address(a), size(lda), address(b), size(ldb)]
                    result = [zero, address(c), size(ldc)]
                    builder.call(function, [*letters, *sizes, *operands, *result])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 13), generate


@jit
def _add_rows(c, row):  # type: ignore[no-untyped-def]
    for i in range(c.size):
        c[i] += row[i]


@jit
def _nn(a, lda, b, ldb, c, ldc, bias, m, n, k):  # type: ignore[no-untyped-def]
    """C = A B + bias, in float32; n is a multiple of 16."""
    for first in range(0, k, _DEPTH_NN):
        depth = min(_DEPTH_NN, k - first)
        for j in range(0, n, COLUMNS):
            columns = min(COLUMNS, n - j)
            right = b + 4 * (first * ldb + j)
            for i in range(0, m, ROWS):
                left, here = a + 4 * (i * lda + first), c + 4 * (i * ldc + j)
                start, step = (here, ldc) if first else (bias + 4 * j if bias else 0, 0)
                rows = min(ROWS, m - i)
                tile(left, lda, 1, rows, right, ldb, columns, depth, here, ldc, start, step)


@jit
def tn(a, lda, b, ldb, c, m, n, k):  # type: ignore[no-untyped-def]
    """C = A^T B, in float32; n is a multiple of 16."""
    for first in range(0, k, SAMPLES_AT_ONCE):
        samples = min(SAMPLES_AT_ONCE, k - first)
        for i in range(0, m, ROWS):
            rows, left = min(ROWS, m - i), a + 4 * (first * lda + i)
            for j in range(0, n, COLUMNS):
                right, here = b + 4 * (first * ldb + j), c + 4 * (i * n + j)
                start, columns = here if first else 0, min(COLUMNS, n - j)
                tile(left, 1, lda, rows, right, ldb, columns, samples, here, n, start, n)


@jit
def gemm(w, part, parts, routines):  # type: ignore[no-untyped-def]
    """C = A B, and a row added to all rows; all stored row by row.

    Words: is_double, ta, tb, m, n, k, a, lda, b, ldb, c, ldc, bias. Of the sides of C the longer
    is shared out.
    """
    is_double, ta, tb, m, n, k = w[2], w[3], w[4], w[5], w[6], w[7]
    a, lda, b, ldb, c, ldc, bias = w[8], w[9], w[10], w[11], w[12], w[13], w[14]
    size = 8 if is_double else 4
    if m > n:
        low, high = share(m, part, parts), share(m, part + 1, parts)
        a += low * size * (1 if ta else lda)
        c += low * size * ldc
        m = high - low
    else:
        low, high = share(n, part, parts), share(n, part + 1, parts)
        b += low * size * (ldb if tb else 1)
        c += low * size
        bias += low * size if bias else 0
        n = high - low
    if m == 0 or n == 0:
        return
    if routines[2] and not is_double and not tb and n % 16 == 0 and n >= 32:
        if not ta:
            _nn(a, lda, b, ldb, c, ldc, bias, m, n, k)
            return
        if min(k, SAMPLES_AT_ONCE) * n <= LARGEST_RIGHT and ldc == n:
            tn(a, lda, b, ldb, c, m, n, k)
            return
    # Read by columns, as Fortran does, each matrix is its transpose, and so is the product.
    routine = routines[1] if is_double else routines[0]
    _blas(routine, is_double, tb, ta, n, m, k, b, ldb, a, lda, c, ldc)
    if bias:
        for i in range(m):
            at = c + i * ldc * size
            if is_double:
                _add_rows(carray(pointer(at), n, np.float64), carray(pointer(bias), n, np.float64))
            else:
                _add_rows(carray(pointer(at), n, np.float32), carray(pointer(bias), n, np.float32))
