"""What numba has no words for: addresses, words that threads share, waiting, and powers of two."""

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
    "rest",
    "share",
    "store",
]

# Without "reassoc" a sum would not be vectorised. NaN and infinity keep their meaning. "numpy"
# divides as NumPy does: a check for zero would stop the vectorisation too.
OPTIONS = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
_I32, _I64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()


jit = njit(**OPTIONS)


@intrinsic
def pointer(context, address):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def call(context, code, job, part, parts, totals, scratch):  # type: ignore[no-untyped-def]
    """Call the machine code of a job at its address."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(_VOID, [_I64] * 5)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def load(context, address):  # type: ignore[no-untyped-def]
    """Read a word; what another thread wrote before it wrote the word is then seen too."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def store(context, address, value):  # type: ignore[no-untyped-def]
    """Write a word, behind all that was written before."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        builder.store_atomic(arguments[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def rest(context, turn):  # type: ignore[no-untyped-def]
    """Wait a moment: at first in the processor, then by letting other threads go first."""

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
    """Give 2 to the power of a whole number, by writing that into the exponent's bits."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        is_double = isinstance(arguments[0].type, ir.DoubleType)
        kind, bias, bits = (_I64, 1023, 52) if is_double else (_I32, 127, 23)
        exponent = builder.fptosi(arguments[0], kind)
        exponent = builder.shl(builder.add(exponent, kind(bias)), kind(bits))
        return builder.bitcast(exponent, arguments[0].type)

    return n(n), generate


@jit
def share(n, part, parts):  # type: ignore[no-untyped-def]
    """Give where a part of ``range(n)`` begins; parts begin at whole vectors."""
    return n if part == parts else (n * part // parts) // 16 * 16
