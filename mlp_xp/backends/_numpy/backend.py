"""The NumPy backend: compiled steps, and machine code in a thread pool if numba is installed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp._utils.optional import install_command, pip_command
from mlp_xp._utils.signals.forks import between_forks
from mlp_xp._utils.threads import usable_threads
from mlp_xp._utils.tree import map_leaves
from mlp_xp.backends._base import Backend, BackendError, F
from mlp_xp.backends._numpy.kernels.embedding import sum_rows_of_table
from mlp_xp.backends._numpy.kernels.forward import activate, dense, dense_in_bfloat16, gather, loss
from mlp_xp.backends._numpy.kernels.updates import update_tree
from mlp_xp.backends._numpy.runtime.memory import aligned
from mlp_xp.backends._numpy.runtime.subnormals import flush_subnormals
from mlp_xp.backends._numpy.runtime.thread_pool import (
    bfloat16_packing,
    can_compile,
    has_pool,
    machine_code_error,
    one_blas_thread,
    thread_pool,
)
from mlp_xp.backends._numpy.tracing.compiled_step import CompiledLoop, CompiledStep
from mlp_xp.backends._numpy.tracing.namespace import xp
from mlp_xp.backends._precision import lacking
from mlp_xp.backends.kernels import Kernels
from mlp_xp.optimizers import Optimizer

# The minimum number of operations per step for which a thread pool pays off.
_LEAST_WORK = 2_000_000
# Steps with `_LEAST_BLAS_WORK` to `_MOST_BLAS_WORK` operations use one BLAS thread, since
# synchronizing several threads takes several times as long as the computation (bench,
# drop-in/lbfgs). For shorter steps, the BLAS threads are not limited, since finding the BLAS
# libraries takes milliseconds. The exception is a step with a parameter array of at least
# `_LEAST_SHARED` elements: from this size on, OpenBLAS splits a sum of squares, such as the L2
# penalty, among threads.
_LEAST_BLAS_WORK, _MOST_BLAS_WORK, _LEAST_SHARED = 125_000, 20_000_000, 10_000
# A fit or prediction with at least `_LONG` operations waits for machine code, which takes seconds
# to compile the first time. Without machine code, `_LONG` operations take about a second. A step's
# overhead costs about as much as `_STEP_WORK` operations.
_LONG = 10_000_000_000
_STEP_WORK = 2_000_000


class NumpyBackend(Backend):
    """NumPy arrays in host memory; `put` does not copy them."""

    name = "numpy"
    shares_host_memory = True
    has_sparse_products = True
    returns_results = True
    has_workers = True
    xp = xp
    device = "cpu"
    kernels = Kernels(
        dense=dense,
        gather=gather,
        loss=loss,
        update=update_tree,
        activate=activate,
        sum_rows_of_table=sum_rows_of_table,
    )

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray)

    def get(self, array: Array) -> np.ndarray:
        return np.asarray(array)

    def put(self, array: Any, dtype: str | None = None) -> Array:
        if type(array) is np.ndarray and (dtype is None or array.dtype == dtype):
            return cast(Array, array)
        return super().put(array, dtype)

    def contiguous(self, array: Any) -> Array:
        return cast(Array, np.ascontiguousarray(array))

    def _move(self, array: Any) -> Array:
        return array

    def _check_products(self, precision: str) -> None:
        if precision != "bf16":
            super()._check_products(precision)
        cure, reason = "backend='torch' or 'jax', or precision='float32'", ""
        packing = can_compile() and bfloat16_packing()
        if os.name != "posix":
            reason = " on Windows"
        elif not can_compile():
            cure, reason = f"{cure}, or type {install_command('fast')}", " without numba"
        elif not packing:
            cure = "precision='float32', or backend='jax'"
            reason = (
                " (this processor lacks AVX512_BF16, available in AMD since Zen 4 and Intel Xeon "
                "since Sapphire Rapids)"
            )
        if reason:
            raise lacking(self.name, self.device, precision, cure, reason)

    def _kernels_in(self, precision: str) -> Kernels:
        return replace(self.kernels, dense=dense_in_bfloat16)

    @property
    def has_machine_code(self) -> bool:
        return can_compile()

    def place_state(self, optimizer: Optimizer, params: Tree, opt_state: Tree) -> tuple[Tree, Tree]:
        if has_pool():  # Align only once, since steps update the state in place.
            params, opt_state = map_leaves(aligned, (params, opt_state))
        return params, opt_state

    def compile(self, function: F, *, donate: bool = False) -> F:
        if donate:
            return cast(F, CompiledStep(function))
        return between_forks(function)

    def loop(self, body: Callable[..., Any]) -> Callable[..., Any]:
        return CompiledLoop(body)

    def release(self, compiled: Any, state: Any) -> Any:
        return compiled.release(state)

    def predicting(self, work: int) -> contextlib.AbstractContextManager[object]:
        is_long = self.is_long(work, 1)
        return thread_pool(usable_threads()) if is_long else contextlib.nullcontext()

    def predicting_in(self, precision: str | None) -> Backend:
        # The model may have been fitted on another machine, and this processor may not support
        # bfloat16.
        return self.with_precision("bf16") if precision == "bf16" and bfloat16_packing() else self

    def map(self, function: Callable[[int], Array], values: Sequence[int]) -> Iterable[Array]:
        n_threads = min(usable_threads(), len(values))
        if n_threads == 1:
            return map(function, values)
        with ThreadPoolExecutor(n_threads, thread_name_prefix="mlp_xp-map") as pool:
            return list(pool.map(function, values))

    @contextlib.contextmanager
    def training(
        self, work: int, n_steps: int = 1, sparse_work: int = 0, largest: int = 0
    ) -> Iterator[None]:
        # The choice depends only on settings and shapes, so results are reproducible.
        context: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        products = work - sparse_work
        if self.is_long(work, n_steps):
            context = thread_pool(usable_threads() if work >= _LEAST_WORK else 1)
        elif products >= _MOST_BLAS_WORK:
            if usable_threads() == 1:  # BLAS ignores container CPU limits.
                context = one_blas_thread()
        elif products >= _LEAST_BLAS_WORK or largest >= _LEAST_SHARED:
            context = one_blas_thread()
        # Disable NumPy's warnings, since the training loop itself checks for infinity and NaN.
        with (
            flush_subnormals(),  # Set this mode before the threads start, since they inherit it.
            context,
            np.errstate(over="ignore", invalid="ignore"),
        ):
            yield

    def is_long(self, work: int, n_steps: int) -> bool:
        return (work + _STEP_WORK) * n_steps >= _LONG and can_compile()

    def sharing(self, n_threads: int) -> contextlib.AbstractContextManager[object]:
        return threadpool_limits(n_threads, user_api="blas")

    def describe(self) -> dict[str, str]:
        pools = "; ".join(
            f"{pool['internal_api']} {pool['version']}, {pool['num_threads']} threads"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        )
        return super().describe() | {"blas": pools}


def compile_ahead() -> str:
    """Compile all machine code and return its cache folder; raise BackendError on failure."""
    if not can_compile():
        raise BackendError(
            "Machine code needs Linux or macOS, numba, and NUMBA_DISABLE_JIT unset: type "
            f"{install_command('fast')}"
        )
    try:
        from mlp_xp.backends._numpy import machine_code

        folder = machine_code.compile_all()
    except (machine_code_error(), ImportError, OSError) as error:
        raise BackendError(
            f"This version of numba cannot compile the machine code ({error}): type "
            f"{pip_command('--upgrade numba')}"
        ) from error
    if folder is None:
        raise BackendError(
            "The compiled machine code cannot be saved: set MLP_XP_CACHE to a folder where you "
            "have write permission."
        )
    return str(folder)


def create(device: Any) -> NumpyBackend:
    """Return the NumPy backend; the only device is ``"cpu"``."""
    if device not in (None, "cpu"):
        raise ValueError(f"`device` must be 'cpu' for backend 'numpy', got {device!r}.")
    return NumpyBackend()
