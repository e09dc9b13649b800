"""Operations that numba lacks: pointers, atomic integers, waiting, rounding, and powers of two."""

from __future__ import annotations

import platform
import sys
import time
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# "reassoc" allows LLVM to vectorize sums, and handles NaN and infinity correctly. The "numpy" error
# model omits the check for division by zero, since the check would prevent vectorization.
OPTIONS = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
_I32, _I64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()


jit = njit(**OPTIONS)


@intrinsic
def pointer(context, address):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def call(context, code, job, thread, n_threads, totals, scratch):  # type: ignore[no-untyped-def]
    """Call the machine code at an address."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(_VOID, [_I64] * 5)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def load(context, address):  # type: ignore[no-untyped-def]
    """Read an integer atomically; also make the writer's earlier writes visible to this thread."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def swap(context, address, value):  # type: ignore[no-untyped-def]
    """Write an integer atomically, after all earlier writes and before all later reads."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("xchg", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def add(context, address, value):  # type: ignore[no-untyped-def]
    """Add to an integer atomically, with the memory order of `swap`."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def replace(context, address, old, new):  # type: ignore[no-untyped-def]
    """Compare and swap: write an integer if it has the old value; return whether it was written."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        found = builder.cmpxchg(pointer, arguments[1], arguments[2], "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def spin(context):  # type: ignore[no-untyped-def]
    """Execute a pause instruction."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if platform.machine() in ("x86_64", "AMD64"):
            kind = ir.FunctionType(_VOID, [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


# The number of Linux's system call `futex`. On other systems, waiting threads yield the processor.
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if sys.platform == "linux" else None
_WAIT, _WAKE = 128, 129  # The futex operations that wait and wake within this process.


def _call_futex(builder: Any, address: Any, operation: int, value: Any) -> None:
    if _FUTEX is None:
        kind, name, given = ir.FunctionType(_I32, []), "sched_yield", []
    else:
        kind, name = ir.FunctionType(_I64, [_I64], var_arg=True), "syscall"
        given = [_I64(_FUTEX), address, _I64(operation), value, _I64(0), _I64(0), _I64(0)]
    builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given)


@intrinsic
def sleep(context, address, value):  # type: ignore[no-untyped-def]
    """Sleep until `wake`, unless the integer at the address already has another value."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _call_futex(builder, arguments[0], _WAIT, arguments[1])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def wake(context, address):  # type: ignore[no-untyped-def]
    """Wake all threads that sleep on an address."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if _FUTEX is not None:
            _call_futex(builder, arguments[0], _WAKE, _I64(2**31 - 1))
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def nanoseconds(context):  # type: ignore[no-untyped-def]
    """Return the time of a monotonic clock."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pair = ir.ArrayType(_I64, 2)
        slot = cgutils.alloca_once(builder, pair)
        kind = ir.FunctionType(_I32, [_I32, pair.as_pointer()])
        clock = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(clock, [_I32(time.CLOCK_MONOTONIC), slot])
        seconds, nanos = (builder.extract_value(builder.load(slot), i) for i in range(2))
        return builder.add(builder.mul(seconds, _I64(10**9)), nanos)

    return types.int64(), generate


@intrinsic
def nearest(context, x):  # type: ignore[no-untyped-def]
    """Round to the nearest integer."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = arguments[0].type
        return builder.call(builder.module.declare_intrinsic("llvm.nearbyint", [kind]), arguments)

    return x(x), generate


@intrinsic
def power_of_two(context, n):  # type: ignore[no-untyped-def]
    """Compute a power of 2 by setting the exponent bits."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        is_double = isinstance(arguments[0].type, ir.DoubleType)
        kind, bias, bits = (_I64, 1023, 52) if is_double else (_I32, 127, 23)
        exponent = builder.fptosi(arguments[0], kind)
        exponent = builder.shl(builder.add(exponent, kind(bias)), kind(bits))
        return builder.bitcast(exponent, arguments[0].type)

    return n(n), generate


@jit
def copy(source, target, n):  # type: ignore[no-untyped-def]
    """Copy 32-bit words from one address to another."""
    source_, target_ = carray(pointer(source), n, np.int32), carray(pointer(target), n, np.int32)
    for i in range(n):
        target_[i] = source_[i]


@jit
def start_of(thread, n_threads, n):  # type: ignore[no-untyped-def]
    """Return where a thread's part of ``range(n)`` starts: at a multiple of 16 (whole vectors)."""
    return n if thread == n_threads else (n * thread // n_threads) // 16 * 16


@jit
def part_of(thread, n_threads, n, multiple):  # type: ignore[no-untyped-def]
    """Return the start of a thread's part of ``range(n)``; it is a multiple of ``multiple``."""
    return min(n, -(-n // at_least_one(multiple)) * thread // n_threads * multiple)


@jit
def at_least_one(n):  # type: ignore[no-untyped-def]
    """Return at least 1, so numba knows that a stride or divisor is not 0."""
    return max(1, n)
