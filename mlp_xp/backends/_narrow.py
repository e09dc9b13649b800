"""The dense layer for NumPy where the output is narrow: many inputs, at most 64 outputs.

A BLAS copies its operands into panels first, which pays when each number is then used hundreds of
times. With 64 outputs it is used 64 times, and the copying takes a quarter of the time. Here a tile
of 6 x 64 results stays in the registers while the operands stream past it, uncopied (the inner
kernel of Goto, van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, without its
packing).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from mlp_xp import layers
from mlp_xp._typing import Array, Namespace
from mlp_xp.backends._numba import jit
from mlp_xp.layers import Dense, DensePullback

__all__ = ["dense", "suits"]

_LANES = 16  # float32 numbers in a vector of 512 bits
_ROWS = 6  # 6 rows of 4 vectors fill 24 of the 32 registers
# Rows whose products with a column are added up in the registers: x stays in the caches meanwhile.
_DEPTH = 256
# With less, handing over to threads costs more than the kernel brings (bench/lab_full_batch.py).
_LEAST_ROWS, _LEAST_INPUTS = 512, 256


def dense(params: Dense, x: Array, *, xp: Namespace) -> tuple[Array, DensePullback]:
    """Do what `mlp_xp.layers.dense` does."""
    W, b = params
    if not _takes(W, x):
        return layers.dense(params, x, xp=xp)
    kernels, threads = _kernels(), _threads()
    n_samples, fan_in = x.shape
    y: Any = np.empty((n_samples, W.shape[1]), dtype=np.float32)
    _share_out(lambda low, high: kernels["forward"](x, W, y, low, high), n_samples, threads)
    y += b

    def pullback(dy: Any, *, need_dx: bool) -> tuple[Any, Dense]:
        dx = dy @ W.T if need_dx else None
        dW: Any = np.empty_like(W)
        dy = np.ascontiguousarray(dy)
        whole = fan_in - fan_in % _ROWS
        dW[whole:] = x[:, whole:].T @ dy
        _share_out(
            lambda low, high: kernels["backward"](x, dy, dW, low * _ROWS, high * _ROWS),
            whole // _ROWS,
            threads,
        )
        return dx, Dense(dW, xp.sum(dy, axis=0))

    return y, pullback


def suits(W: Any) -> bool:
    """Tell whether a layer is one for this kernel, with enough rows, on this processor."""
    return (
        W.dtype == np.float32
        and W.shape[1] in (32, 48, 64)
        and W.shape[0] >= _LEAST_INPUTS
        and W.flags.c_contiguous
        and W.flags.aligned
        and _has_wide_vectors()
    )


def _takes(W: Any, x: Any) -> bool:
    return (
        suits(W)
        and x.dtype == np.float32
        and x.shape[0] >= _LEAST_ROWS
        and x.strides[1] == x.itemsize
        and x.strides[0] % x.itemsize == 0
        and x.flags.aligned
    )


@cache
def _has_wide_vectors() -> bool:
    """Tell whether the processor has AVX-512; with shorter vectors the tile does not fit."""
    try:
        from llvmlite import binding
    except ImportError:
        return False
    return bool(binding.get_host_cpu_features().get("avx512f"))


def _threads() -> int:
    """Give the threads that a BLAS would take, by its variables, else all usable processors."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return max(int(os.environ[name]), 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="mlp_xp-narrow")


if hasattr(os, "register_at_fork"):
    # A forked process inherits the pool without its threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _share_out(work: Callable[[int, int], Any], n: int, threads: int) -> None:
    """Do ``work(low, high)`` on as many parts of ``range(n)`` as there are threads."""
    parts = max(min(threads, n // _ROWS), 1)
    bounds = [n * part // parts for part in range(parts + 1)]
    others = [_pool().submit(work, low, high) for low, high in pairwise(bounds[1:])]
    work(bounds[0], bounds[1])
    for other in others:
        other.result()


@cache
def _kernels() -> dict[str, Callable[..., None]]:
    """Compile the two products, or take them from numba's cache."""
    tile = _tile()
    rows, depth = _ROWS, _DEPTH

    @jit
    def forward(x, W, y, low, high):  # type: ignore[no-untyped-def]
        fan_in, width = W.shape
        stride = x.strides[0] // 4
        for i in range(low, high, rows):
            # The last tile goes back far enough to be a whole one.
            i = max(min(i, high - rows), 0)
            tile(
                x.ctypes.data + 4 * i * stride,
                stride,
                1,
                W.ctypes.data,
                width,
                fan_in,
                y.ctypes.data + 4 * i * width,
                0,
            )

    @jit
    def backward(x, dy, dW, low, high):  # type: ignore[no-untyped-def]
        n_samples, width = dy.shape
        stride = x.strides[0] // 4
        for start in range(0, n_samples, depth):
            n = min(depth, n_samples - start)
            for k in range(low, high, rows):
                tile(
                    x.ctypes.data + 4 * (start * stride + k),
                    1,
                    stride,
                    dy.ctypes.data + 4 * start * width,
                    width,
                    n,
                    dW.ctypes.data + 4 * k * width,
                    start,
                )

    return {"forward": forward, "backward": backward}


def _tile() -> Any:
    """Give the inner kernel: six rows of results, each as wide as the layer, in registers.

    ``tile(a, a_row, a_step, b, width, n, c, add)`` sets, or increases if ``add`` is not 0,
    ``c[r, j]`` by the sum over ``s < n`` of ``a[r * a_row + s * a_step] * b[s, j]``. Addresses are
    in bytes, steps in numbers. Numba has no vectors, so this is written in LLVM's own language.
    """
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    i64, f32 = ir.IntType(64), ir.FloatType()
    vector = ir.VectorType(f32, _LANES)

    @intrinsic
    def tile(context, a, a_row, a_step, b, width, n, c, add):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            a, a_row, a_step, b, width, n, c, add = arguments
            a, b, c = (builder.inttoptr(address, f32.as_pointer()) for address in (a, b, c))
            # One loop for each width, so that its registers are known.
            for vectors in (2, 3, 4):
                here = builder.icmp_signed("==", width, ir.Constant(i64, vectors * _LANES))
                with builder.if_then(here):
                    _loop(builder, a, a_row, a_step, b, width, n, c, add, vectors)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), generate

    def _loop(
        builder: Any,
        a: Any,
        a_row: Any,
        a_step: Any,
        b: Any,
        width: Any,
        n: Any,
        c: Any,
        add: Any,
        vectors: int,
    ) -> None:
        def at(pointer: Any, offset: Any) -> Any:
            return builder.gep(pointer, [offset])

        def number(value: int) -> Any:
            return ir.Constant(i64, value)

        def vector_at(pointer: Any, offset: Any) -> Any:
            return builder.bitcast(at(pointer, offset), vector.as_pointer())

        def load(pointer: Any) -> Any:
            loaded = builder.load(pointer)
            loaded.align = 4
            return loaded

        kind = ir.FunctionType(vector, [vector] * 3)
        fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{_LANES}f32")
        nowhere = ir.Constant(vector, ir.Undefined)
        spread = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
        cells = [(row, v) for row in range(_ROWS) for v in range(vectors)]

        before = builder.block
        body, after = builder.append_basic_block("step"), builder.append_basic_block("done")
        builder.branch(body)
        builder.position_at_end(body)
        step = builder.phi(i64)
        step.add_incoming(number(0), before)
        sums = {cell: builder.phi(vector) for cell in cells}
        for total in sums.values():
            total.add_incoming(ir.Constant(vector, [0.0] * _LANES), before)
        b_row = builder.mul(step, width)
        bs = [load(vector_at(b, builder.add(b_row, number(v * _LANES)))) for v in range(vectors)]
        a_place = builder.mul(step, a_step)
        for row in range(_ROWS):
            place = builder.add(a_place, builder.mul(a_row, number(row)))
            single = builder.insert_element(
                nowhere, builder.load(at(a, place)), ir.Constant(ir.IntType(32), 0)
            )
            wide = builder.shuffle_vector(single, nowhere, spread)
            for v in range(vectors):
                total = sums[row, v]
                sums[row, v] = builder.call(fma, [wide, bs[v], total])
                total.add_incoming(sums[row, v], body)
        following = builder.add(step, number(1))
        step.add_incoming(following, body)
        builder.cbranch(builder.icmp_signed("<", following, n), body, after)

        builder.position_at_end(after)
        adds = builder.icmp_signed("!=", add, number(0))
        for row, v in cells:
            offset = builder.add(builder.mul(width, number(row)), number(v * _LANES))
            place = vector_at(c, offset)
            total = sums[row, v]
            sum_ = builder.select(adds, builder.fadd(load(place), total), total)
            builder.store(sum_, place).align = 4

    return tile
