"""Operations that numba lacks, such as pointers, atomic integers, waiting and powers of two."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# "reassoc" allows LLVM to vectorize sums, and preserves NaN and infinity. The "numpy" error model
# omits checks for division by zero, which would prevent vectorization.
OPTIONS = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
_I32, _I64, _VOID = ir.IntType(32), ir.IntType(64), ir.VoidType()


jit = njit(**OPTIONS)


def instruction(
    result: Any = None, names: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes ``emit(builder, *values)``, which emits code, an intrinsic.

    The arguments are 64-bit integers, and ``result`` is the type of the result. Without ``result``,
    arguments may have any type, and the result has the type of the last one. ``names`` are the
    arguments' names, by default as in ``emit``.
    """

    def decorate(emit: Callable[..., Any]) -> Any:
        def typed(context, *arguments):  # type: ignore[no-untyped-def]
            def generate(context, builder, _, values):  # type: ignore[no-untyped-def]
                value = emit(builder, *values)
                return context.get_dummy_value() if value is None else value

            if result is None:
                return arguments[-1](*arguments), generate
            return result(*[types.int64] * len(arguments)), generate

        # Numba needs named arguments instead of ``*arguments``.
        own = "context", *(names or [*signature(emit).parameters][1:])
        given = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in own]
        typed.__signature__ = Signature(given)  # type: ignore[attr-defined]
        return intrinsic(typed)

    return decorate


def call_function(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Emit a call to an external function or an LLVM intrinsic."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@instruction(types.voidptr)
def pointer(builder, address):  # type: ignore[no-untyped-def]
    return builder.inttoptr(address, cgutils.voidptr_t)


@instruction(types.void)
def call(builder, code, task, thread, n_threads, scratch):  # type: ignore[no-untyped-def]
    """Call the machine code at an address."""
    kind = ir.FunctionType(_VOID, [_I64] * 4)
    function = builder.inttoptr(code, kind.as_pointer())
    builder.call(function, [task, thread, n_threads, scratch])


@instruction(types.int64)
def load(builder, address):  # type: ignore[no-untyped-def]
    """Read an integer atomically; also make the writer's earlier writes visible to this thread."""
    return builder.load_atomic(builder.inttoptr(address, _I64.as_pointer()), "seq_cst", 8)


def _read_modify_write(operation: str) -> Any:
    @instruction(types.int64)
    def change(builder, address, value):  # type: ignore[no-untyped-def]
        place = builder.inttoptr(address, _I64.as_pointer())
        return builder.atomic_rmw(operation, place, value, "seq_cst")

    return change


# Store or add an integer atomically, after all earlier writes and before all later reads.
swap, add = map(_read_modify_write, ("xchg", "add"))


@instruction(types.boolean)
def replace(builder, address, old, new):  # type: ignore[no-untyped-def]
    """Compare and swap: write an integer if the old value matches, and return whether it did."""
    place = builder.inttoptr(address, _I64.as_pointer())
    return builder.extract_value(builder.cmpxchg(place, old, new, "seq_cst", "seq_cst"), 1)


@instruction(types.void)
def spin(builder):  # type: ignore[no-untyped-def]
    """Execute a pause instruction."""
    if platform.machine() in ("x86_64", "AMD64"):
        call_function(builder, "llvm.x86.sse2.pause", _VOID)


# The number of Linux's system call `futex`. On other systems, waiting threads yield the processor.
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if sys.platform == "linux" else None
_WAIT, _WAKE = 128, 129  # The futex operations that wait and wake within this process.


def _call_futex(builder: Any, address: Any, operation: int, value: Any) -> None:
    kind = ir.FunctionType(_I64, [_I64], var_arg=True)
    given = [_I64(_FUTEX), address, _I64(operation), value, _I64(0), _I64(0), _I64(0)]
    builder.call(cgutils.get_or_insert_function(builder.module, kind, "syscall"), given)


@instruction(types.void)
def sleep(builder, address, value):  # type: ignore[no-untyped-def]
    """Sleep until `wake`, unless the integer at the address already has another value."""
    if _FUTEX is None:
        call_function(builder, "sched_yield", _I32)
    else:
        _call_futex(builder, address, _WAIT, value)


@instruction(types.void)
def wake(builder, address):  # type: ignore[no-untyped-def]
    """Wake all threads that sleep on an address."""
    if _FUTEX is not None:
        _call_futex(builder, address, _WAKE, _I64(2**31 - 1))


@instruction(types.int64)
def nanoseconds(builder):  # type: ignore[no-untyped-def]
    """Return the time of a monotonic clock."""
    slot = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
    call_function(builder, "clock_gettime", _I32, _I32(time.CLOCK_MONOTONIC), slot)
    seconds, nanos = (builder.extract_value(builder.load(slot), i) for i in range(2))
    return builder.add(builder.mul(seconds, _I64(10**9)), nanos)


@instruction()
def power_of_two(builder, n):  # type: ignore[no-untyped-def]
    """Compute a power of 2 by setting the exponent bits."""
    is_double = isinstance(n.type, ir.DoubleType)
    kind, bias, bits = (_I64, 1023, 52) if is_double else (_I32, 127, 23)
    exponent = builder.add(builder.fptosi(n, kind), kind(bias))
    return builder.bitcast(builder.shl(exponent, kind(bits)), n.type)


@jit
def copy(source, target, n):  # type: ignore[no-untyped-def]
    """Copy 32-bit words from one address to another."""
    source_, target_ = carray(pointer(source), n, np.int32), carray(pointer(target), n, np.int32)
    for i in range(n):
        target_[i] = source_[i]


@jit
def start_of(thread, n_threads, n):  # type: ignore[no-untyped-def]
    """Return where a thread's part of ``range(n)`` starts, a multiple of 16 (whole vectors)."""
    return n if thread == n_threads else (n * thread // n_threads) // 16 * 16


@jit
def part_of(thread, n_threads, n, multiple):  # type: ignore[no-untyped-def]
    """Return where a thread's part of ``range(n)`` starts, a multiple of ``multiple``."""
    return min(n, -(-n // at_least_one(multiple)) * thread // n_threads * multiple)


@jit
def at_least_one(n):  # type: ignore[no-untyped-def]
    """Return n or at least 1, which tells numba that a stride or divisor is not 0."""
    return max(1, n)
