"""Create each kernel once from source, and list all kernels for the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import cupy
import numpy as np

from mlp_xp.compiler.c_expressions import C_TYPES
from mlp_xp.compiler.print_cuda import PREAMBLE, THREADS, functions

Factory = Callable[..., Any]

_FACTORIES: list[tuple[Factory, tuple[tuple[Any, ...], ...]]] = []
_GENERATED: list[Any] = []

# NumPy's type codes for the supported dtypes. Looking up dtypes by name would take microseconds.
FLOATS = ("<f4", "<f8")


def kernel(*variants: tuple[Any, ...]) -> Callable[[Factory], Factory]:
    """Cache the kernels that a function returns, and include them in `every_kernel`.

    ``variants`` are arguments that together compile every line of the kernel's source.
    """

    def register(factory: Factory) -> Factory:
        cached = cache(factory)
        _FACTORIES.append((cached, variants or ((),)))
        return cached

    return register


def record(generated: Any) -> Any:
    """Remember a kernel that the compiler generated, for `every_kernel`."""
    _GENERATED.append(generated)
    return generated


def every_kernel() -> Iterator[Any]:
    """Yield all variants of each registered kernel, then the kernels printed so far.

    In the source of an `ElementwiseKernel`, dtypes are letters that CuPy replaces; the source of a
    `RawKernel` is complete.
    """
    for factory, variants in _FACTORIES:
        for variant in variants:
            yield factory(*variant)
    yield from _GENERATED


@cache
def compile_text(code: str, name: str, options: tuple[str, ...]) -> Any:
    """Compile a complete source, or return the cached kernel for an equal source."""
    return record(cupy.RawKernel(code, name, options))


def raw_kernel(
    name: str,
    body: str,
    types: dict[str, str],
    options: tuple[str, ...] = (),
    helpers: str = "",
    /,
    n_blocks: int | None = None,
    **constants: int,
) -> Any:
    """Return a raw kernel whose ``body`` is a parameter list in parentheses and code in braces.

    ``types`` maps the letters used for dtypes in the code to NumPy's type codes; T is the dtype of
    sums. ``constants`` and THREADS are defined as macros. If given, ``n_blocks`` must fit a
    multiprocessor at once.
    """
    lines = [f"#define {key} {value}" for key, value in ({"THREADS": THREADS} | constants).items()]
    lines += [
        f"typedef {C_TYPES[np.dtype(dtype).name]} {letter};" for letter, dtype in types.items()
    ]
    bounds = f"__launch_bounds__(THREADS, {n_blocks}) " if n_blocks else ""
    head = f'extern "C" __global__ void {bounds}{name}'
    code = "\n".join((*lines, PREAMBLE, functions(["sum"]), helpers, f"{head}{body}"))
    return compile_text(code, name, options)


def is_plain(dtype: Any, *arrays: Any) -> bool:
    """Whether all arrays are C-contiguous CuPy arrays of one dtype that the kernels support."""
    return dtype.str in FLOATS and all(
        isinstance(array, cupy.ndarray) and array.dtype == dtype and array.flags.c_contiguous
        for array in arrays
    )


def blocks_for(n: int, size: int) -> int:
    """Return the number of blocks of this size that ``n`` items need."""
    return -(-n // size)
