"""Call machine code, or record the call in a traced step; check that arrays are suitable."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from mlp_xp.backends._numpy.runtime.thread_pool import link, machine_code_error, runner
from mlp_xp.backends._numpy.tracing.traced import Traced

F = TypeVar("F", bound=Callable[..., Any])


def with_fallback(kernel: F) -> F:
    """Wrap a kernel to rerun without machine code if its machine code cannot be compiled."""

    @functools.wraps(kernel)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return kernel(*args, **options)
        except machine_code_error():
            return kernel(*args, **options)

    return cast(F, run)


def run(fields: Any, is_shared: bool, *others: Any) -> None:
    """Call machine code, or record the call in a program if arguments are traced arrays."""
    from mlp_xp.backends._numpy.runtime.tasks import Task, step_range, table

    task = Task(fields, is_shared, others)
    for value in (*fields, *others):
        if isinstance(value, Traced):
            value.program.task(task)
            return
    records, _ = table([task])
    link([records])
    runner()(step_range(records), False)


def call(function: Callable[..., None], *args: Any) -> None:
    """Call a function that writes to its arguments, or record the call if they are traced."""
    program = next((arg.program for arg in args if isinstance(arg, Traced)), None)
    if program is None:
        function(*args)
    else:
        program.call(function, *args)


def are_contiguous(*arrays: Any) -> bool:
    """Whether all arrays are C-contiguous and have the same dtype, float32 or float64."""
    first = arrays[0].dtype
    return first in (np.float32, np.float64) and all(
        array.dtype == first and array.flags.c_contiguous and array.flags.aligned
        for array in arrays
    )


def are_positions(array: Any, like: Any) -> bool:
    """Whether an array contains one int32 position per row of ``like``."""
    return (
        array.shape == like.shape[:1]
        and array.dtype == np.int32
        and array.flags.c_contiguous
        and array.flags.aligned
    )


def contiguous_like(array: Any, like: Any) -> Any:
    """Return a C-contiguous array, cast to the dtype of ``like``."""
    if are_contiguous(array, like):
        return array
    if isinstance(array, Traced):
        return array.astype(like.dtype)  # Copies are C-contiguous.
    return np.ascontiguousarray(array, dtype=like.dtype)


def has_rows(x: Any) -> bool:
    """Whether each row of x is contiguous; gaps between rows are allowed."""
    if x.ndim != 2 or x.size == 0 or not x.flags.aligned:
        return False
    lie_apart = x.shape[0] == 1 or x.strides[0] >= x.shape[1] * x.itemsize
    is_row = x.shape[1] == 1 or x.strides[1] == x.itemsize
    return bool(is_row and lie_apart and x.strides[0] % x.itemsize == 0)


@functools.lru_cache(maxsize=256)
def constants(values: tuple[float, ...]) -> np.ndarray:
    """Return constants as a cached array."""
    return np.asarray(values, dtype=np.float64)
