"""Operations that numba lacks: addresses, atomic loads and stores, waiting, and powers of two."""

from __future__ import annotations

import platform

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "OPTIONS",
    "call",
    "jit",
    "load",
    "nearest",
    "pointer",
    "power_of_two",
    "start_of",
    "store",
    "wait",
]

# Without "reassoc" a sum would not be vectorized. NaN and infinity keep their meaning. "numpy"
# divides as NumPy does: a check for zero would stop the vectorization too.
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
    """Call the machine code of a job at its address."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(_VOID, [_I64] * 5)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def load(context, address):  # type: ignore[no-untyped-def]
    """Read an integer; what another thread wrote before it is then visible too."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def store(context, address, value):  # type: ignore[no-untyped-def]
    """Write an integer after everything written before."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        builder.store_atomic(arguments[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def wait(context, turn):  # type: ignore[no-untyped-def]
    """Wait a moment: at first in the processor, later by yielding to other threads."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        module, (turn,) = builder.module, arguments
        with builder.if_else(builder.icmp_signed("<", turn, ir.Constant(_I64, 4000))) as (a, b):
            with a:
                if platform.machine() in ("x86_64", "AMD64"):
                    kind = ir.FunctionType(_VOID, [])
                    builder.call(
                        cgutils.get_or_insert_function(module, kind, "llvm.x86.sse2.pause"), []
                    )
            with b:
                kind = ir.FunctionType(_I32, [])
                builder.call(cgutils.get_or_insert_function(module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def nearest(context, x):  # type: ignore[no-untyped-def]
    """Round to the nearest whole number."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = arguments[0].type
        return builder.call(builder.module.declare_intrinsic("llvm.nearbyint", [kind]), arguments)

    return x(x), generate


@intrinsic
def power_of_two(context, n):  # type: ignore[no-untyped-def]
    """Compute 2 to the power of a whole number by writing it into the exponent's bits."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        is_double = isinstance(arguments[0].type, ir.DoubleType)
        kind, bias, bits = (_I64, 1023, 52) if is_double else (_I32, 127, 23)
        exponent = builder.fptosi(arguments[0], kind)
        exponent = builder.shl(builder.add(exponent, kind(bias)), kind(bits))
        return builder.bitcast(exponent, arguments[0].type)

    return n(n), generate


@jit
def start_of(thread, n_threads, n):  # type: ignore[no-untyped-def]
    """Return where a thread's part of ``range(n)`` starts, a multiple of 16 (whole vectors)."""
    return n if thread == n_threads else (n * thread // n_threads) // 16 * 16
