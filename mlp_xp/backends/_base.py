"""The interface of a backend; the default methods use only the Array API."""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, Self, TypeVar

import array_api_compat
import numpy as np

from mlp_xp._utils.array_types import Array, Device, Namespace, Tree
from mlp_xp.backends._precision import LOW_PRECISIONS, rounded
from mlp_xp.backends.kernels import Kernels
from mlp_xp.optimizers import Optimizer

# Sizes in bytes of a block of rows in host memory, and on devices that do not report their free
# memory. On other devices, a block fills an eighth of the free memory, since casts, activations and
# gradients need several times the size of the block.
_CACHED_BYTES, _DEVICE_BYTES, _PARTS_OF_MEMORY = 3 * 2**23, 2**28, 8
# On two CPU cores, a training step with this many forward-pass operations takes about 0.1 s,
# including the backward pass. A GPU is about 100 times as fast.
_WORK_AT_ONCE = 2_000_000_000

F = TypeVar("F", bound=Callable[..., Any])


def to_numpy(array: Any) -> np.ndarray:
    """Convert an array of any library, or anything that `numpy.asarray` accepts, to NumPy."""
    from mlp_xp.backends import get_backend

    return get_backend(array).get(array) if hasattr(array, "__dlpack__") else np.asarray(array)


class BackendError(RuntimeError):
    """Raised if a backend is missing or unusable; the message says how to fix it."""


class Backend:
    """An array library on one device, and how it executes training steps."""

    name: ClassVar[str]
    # If true, each batch size needs a separate compilation, so batches are padded.
    fixed_shapes: ClassVar[bool] = False
    # If true, a compiled step reuses the memory of its input state and thereby invalidates that
    # state.
    donates: bool = False
    has_sparse_products: bool = False  # Whether `gather` accepts a `SparseMatrix`.
    # Whether a step's results are in host memory when the call returns.
    returns_results: ClassVar[bool] = False
    # Whether training is faster in several threads than in one, with one model or one stack per
    # thread.
    has_workers: ClassVar[bool] = False
    has_stack_threads: bool = False
    shares_host_memory: bool = False  # Whether computations use NumPy arrays without a copy.

    xp: Namespace  # The Array API namespace, from array-api-compat if available.
    device: Device
    kernels: Kernels = Kernels()
    precision: str | None = None  # A lower precision for matrix products, e.g. "bf16", or None.

    # Backends that compare equal share compiled functions.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backend) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        return self.name, str(self.device), self.kernels, self.precision

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} on {self.device!s}>"

    # --- transfers -----------------------------------------------------------------------------

    def owns(self, array: object) -> bool:
        """Whether an array belongs to this library."""
        raise NotImplementedError

    def holds(self, array: Any) -> bool:
        """Whether an array belongs to this library and is on `device`."""
        return self.owns(array) and str(array_api_compat.device(array)) == str(self.device)

    def put(self, array: Any, dtype: str | None = None) -> Array:
        """Copy an array to the device if needed, through DLPack if possible, else through NumPy.

        ``dtype`` is a name such as ``"float32"``. The result may share memory with the argument.
        """
        if not self.owns(array):
            if not isinstance(array, np.ndarray) and hasattr(array, "__dlpack__"):
                # A library that rejects another library's memory may raise any exception; copy
                # through host memory instead.
                try:
                    array = self.xp.from_dlpack(array)
                except Exception:
                    array = to_numpy(array)
            if not self.owns(array):
                array = np.asarray(array)
                # Cast on the host, since this may halve the bytes to copy, and some devices lack
                # float64.
                return self._from_numpy(array if dtype is None else array.astype(dtype, copy=False))
        if dtype is None:
            return self._move(array)
        target = getattr(self.xp, dtype)
        if self.has_float64:
            return self.xp.astype(self._move(array), target, copy=False)
        return self._move(self.xp.astype(array, target, copy=False))

    def put_copy(self, array: Any, dtype: str | None = None) -> Array:
        """Copy an array to new memory on the device."""
        return self.xp.asarray(self.put(array, dtype), copy=True)

    def zeros_like(self, array: Array) -> Array:
        """Return zeros on the device, with the shape and dtype of ``array``."""
        return self.xp.zeros_like(array)

    def unstack(self, array: Array) -> Sequence[Array]:
        """Return the rows of an array as separate arrays."""
        rows: Sequence[Array] = self.xp.unstack(array)
        return rows

    def get(self, array: Array) -> np.ndarray:
        """Copy an array of this library to the host, as a NumPy array."""
        raise NotImplementedError

    def contiguous(self, array: Array) -> Array:
        """Return a two-dimensional array in C order, copied only if necessary.

        Gathering rows from column-major data would read all data at each step.
        """
        return array

    def _move(self, array: Any) -> Array:
        """Copy an array of this library to `device`."""
        raise NotImplementedError

    def _from_numpy(self, array: np.ndarray) -> Array:
        return self.xp.asarray(array, device=self.device)

    # --- precision -----------------------------------------------------------------------------

    @property
    def has_float64(self) -> bool:
        """Whether the device supports float64."""
        return True

    @property
    def scales_loss(self) -> bool:
        """Whether the loss must be scaled to prevent small float16 gradients from underflowing."""
        return self.precision == "float16"

    def with_precision(self, precision: str) -> Self:
        """Return a copy of this backend with matrix products in a lower precision.

        ``precision`` is e.g. ``"bf16"``; for ``"float32"``, return the backend unchanged. Raise
        ValueError if the backend or its device does not support the precision.
        """
        if precision not in LOW_PRECISIONS:
            return self
        self._check_products(precision)
        backend = copy.copy(self)
        backend.precision = precision
        backend.kernels = self._kernels_in(precision)
        return backend

    def _check_products(self, precision: str) -> None:
        """Raise ValueError unless the device supports matrix products in this precision."""
        where = " on a GPU" if precision == "tf32" else ""
        raise ValueError(
            f"precision={precision!r} is not supported by backend {self.name!r}: use "
            f"backend='cupy', 'torch' or 'jax'{where}, or precision='float32'."
        )

    def emulates(self, precision: str) -> bool:
        """Whether this device is far slower at products in this precision than in float32."""
        return False

    def _kernels_in(self, precision: str) -> Kernels:
        """Return kernels whose matrix products use a lower precision."""
        if precision == "tf32":
            return self.kernels
        gather = rounded(self.kernels.gather, LOW_PRECISIONS[precision])
        return replace(self.kernels, gather=gather)

    # --- execution -----------------------------------------------------------------------------

    @property
    def has_machine_code(self) -> bool:
        """Whether this machine can run training steps as machine code."""
        return False

    def place_state(self, optimizer: Optimizer, params: Tree, opt_state: Tree) -> tuple[Tree, Tree]:
        """Return parameters and optimizer state in memory aligned for training steps."""
        return params, opt_state

    def scope(self) -> contextlib.AbstractContextManager[object]:
        """Return the context required for all computations on this backend."""
        return contextlib.nullcontext()

    def compile(self, function: F, *, donate: bool = False) -> F:
        """Compile a pure function of trees.

        With ``donate``, the compiled function reuses the first argument's memory. Each call must
        then receive the state that the previous call returned, until `release` is called.
        """
        return function

    def release(self, compiled: Any, state: Any) -> Any:
        """Return the state held by a function that was compiled with ``donate``.

        Afterwards, the function no longer uses this memory and can be called with another state.
        """
        return state

    def loop(self, body: Callable[..., Any]) -> Callable[..., Any] | None:
        """Compile a loop that calls ``body(i, state, steps, *shared)`` to compute each next state.

        The body must be pure. It may use the integer ``i``, possibly traced, only to index the
        first axis (steps) of the arrays in ``steps``, as in ``array[i, ...]``. The result,
        ``run(start, stop, state, steps, *shared)``, calls the body for each i in order and donates
        the state. Return None if a loop is no faster than one call per step on this backend.
        """
        return None

    def loop_of_models(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a loop for several models, ``run(start, stops, state, steps, x, y, scaling)``.

        Models are the first axis of ``state`` and ``scaling``, and the second axis of ``steps``.
        ``stops``, (models,) NumPy integers, are the steps at which the models stop. The results for
        models that stop at ``start`` are undefined.
        """
        loop = self.loop(body)

        def run(start: int, stops: np.ndarray, state: Any, *arguments: Any) -> Any:
            stop = int(stops.max())
            if loop is not None:
                return loop(start, stop, state, *arguments)
            for i in range(start, stop):
                state = body(i, state, *arguments)
            return state

        return run

    @property
    def work_at_once(self) -> int:
        """The number of forward-pass operations in a training step that takes about 0.1 s."""
        return _WORK_AT_ONCE if self.shares_host_memory else 100 * _WORK_AT_ONCE

    def predicting(self, work: int) -> contextlib.AbstractContextManager[object]:
        """Return the context for a prediction with ``work`` multiplications and additions."""
        return contextlib.nullcontext()

    def predicting_in(self, precision: str | None) -> Backend:
        """Return the backend for long predictions with a model fitted in this precision."""
        return self

    def map(self, function: Callable[[int], Array], values: Sequence[int]) -> Iterable[Array]:
        """Apply the function to each value, in threads if that is faster; return the results."""
        return map(function, values)

    def training(
        self, work: int, n_steps: int = 1, sparse_work: int = 0, largest: int = 0
    ) -> contextlib.AbstractContextManager[object]:
        """Return the context for training steps.

        ``work`` and ``sparse_work`` are the numbers of operations in a step's forward pass: in
        total, and in sparse matrix products. ``n_steps`` is the number of steps completed or
        certain to run (0 if there is no time to compile). ``largest`` is the size of the largest
        array.
        """
        return contextlib.nullcontext()

    def is_long(self, work: int, n_steps: int) -> bool:
        """Whether a fit with this many operations and steps should wait for the compiler."""
        return False

    def sharing(self, n_threads: int) -> contextlib.AbstractContextManager[object]:
        """Return the context for workers that each train a model with ``n_threads`` threads."""
        return contextlib.nullcontext()

    def synchronize(self, tree: Tree | None = None) -> None:
        """Wait for this thread's work on the device, or at least for the arrays of a tree."""

    def feed(self, batches: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
        """Copy batches from the host to the device, each while the caller uses the previous one.

        A batch's arrays may be overwritten once the next batch is requested. No batch may have more
        rows than the first.
        """
        iterator = iter(batches)

        def fetch() -> tuple[Array, ...] | None:
            batch = next(iterator, None)
            return None if batch is None else tuple(map(self.put, batch))

        with ThreadPoolExecutor(1, thread_name_prefix="mlp_xp-feed") as pool:
            pending = pool.submit(fetch)
            while (batch := pending.result()) is not None:
                pending = pool.submit(fetch)
                yield batch

    def collect(self, arrays: Iterable[Array]) -> Iterator[np.ndarray]:
        """Copy arrays to the host while the next ones are computed; results may be overwritten."""
        previous = None
        for array in arrays:
            if previous is not None:
                yield self.get(previous)
            previous = array
        if previous is not None:
            yield self.get(previous)

    def free_memory(self) -> int | None:
        """Return the number of free bytes on the device, or None if it uses the host's memory."""
        return None

    def block_bytes(self) -> int:
        """Return the size in bytes of a block of rows for one forward and backward pass.

        On the CPU, a block is small enough for the cache. With 3072 float32 columns and 64 neurons,
        blocks of 6 to 24 MiB were equally fast, and a single block of all data took 10 % longer.
        On a device, blocks are larger, since each block needs about forty kernel launches.
        """
        if self.shares_host_memory:
            return _CACHED_BYTES
        free = self.free_memory()
        return _DEVICE_BYTES if free is None else max(_CACHED_BYTES, free // _PARTS_OF_MEMORY)

    def prove(self) -> None:
        """Compute a small matrix product to check that the device works."""
        with self.scope():
            one = self.put(np.ones((1, 1), np.float32))
            self.get(one @ one)

    # --- information ---------------------------------------------------------------------------

    def describe(self) -> dict[str, str]:
        """Return the library, version and device, for benchmark reports."""
        version = importlib.import_module(self.name).__version__
        return {"library": f"{self.name} {version}", "device": str(self.device)}
