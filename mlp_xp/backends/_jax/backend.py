"""The JAX backend: compiled loops of training steps with donated state."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_xp._utils.array_types import Array, DType, Namespace, Tree
from mlp_xp.augmentation import map_pixels
from mlp_xp.backends import kernels
from mlp_xp.backends._base import Backend, BackendError, F
from mlp_xp.backends._precision import check_capability, lacking
from mlp_xp.backends.kernels import Kernels, Source

# The lengths, in steps, of the loops that are compiled on a GPU.
_CHUNKS = 64, 8, 1


class JaxBackend(Backend):
    """JAX on one device.

    JAX supports float64 only in 64-bit mode, which is enabled only within this package's
    computations. To use float64 results in your own JAX code, set ``jax_enable_x64``.
    """

    name = "jax"
    fixed_shapes = True
    donates = True
    xp = jnp

    def __init__(self, device: jax.Device) -> None:
        self.device = device
        self.shares_host_memory = device.platform == "cpu"
        # On a CPU, XLA computes small matrix products in one thread, so training is faster in
        # several threads.
        self.has_stack_threads = self.shares_host_memory
        if self.shares_host_memory:  # `_gather` uses `cond`, which blocks on a GPU.
            self.kernels = Kernels(gather=_gather, sum_rows_of_table=_sum_rows_of_table)

    def owns(self, array: object) -> bool:
        return isinstance(array, jax.Array)

    def get(self, array: Any) -> np.ndarray:
        # Copy, since the next step overwrites the memory of a view.
        return np.array(array)

    def put(self, array: Any, dtype: str | None = None) -> Array:
        if self._is_here(array) and (dtype is None or array.dtype == dtype):
            return array  # This is four times as fast as `device_put`.
        with jax.enable_x64(True):
            return super().put(array, dtype)

    def _is_here(self, array: Any) -> bool:
        # JAX would recompile a function for an array that is not committed to its device.
        return isinstance(array, jax.Array) and array.committed and array.device == self.device

    def put_copy(self, array: Any, dtype: str | None = None) -> Array:
        with jax.enable_x64(True):
            if not isinstance(array, np.ndarray):
                return super().put_copy(array, dtype)
            # `jax.device_put` may share memory in spite of ``may_alias=False``, and a copy on the
            # device would be compiled for each shape.
            return self._move(np.array(array, dtype=dtype))

    def zeros_like(self, array: Array) -> Array:
        # Creating zeros on the device would be recompiled for each shape.
        return self._move(np.zeros(array.shape, array.dtype))

    def unstack(self, array: Array) -> list[Array]:
        # `jnp.unstack` would be recompiled for each number of rows, at 7 ms per row.
        return [_row(array, np.int32(i)) for i in range(array.shape[0])]

    def _move(self, array: Any) -> Array:
        return jax.device_put(array, self.device)

    def _from_numpy(self, array: np.ndarray) -> Array:
        return self._move(array)

    def _check_products(self, precision: str) -> None:
        if self.device.platform == "gpu":
            major, _, minor = str(self.device.compute_capability).partition(".")
            check_capability(self.name, self.device, precision, (int(major), int(minor or 0)))
        elif precision == "tf32":
            raise lacking(
                self.name, self.device, precision, "device='cuda', or precision='float32'"
            )

    def scope(self) -> contextlib.AbstractContextManager[object]:
        stack = contextlib.ExitStack()
        stack.enter_context(jax.enable_x64(True))
        # On recent GPUs, JAX's default for float32 matrix products would be TF32.
        products = "tensorfloat32" if self.precision == "tf32" else "float32"
        stack.enter_context(jax.default_matmul_precision(products))
        return stack

    def compile(self, function: F, *, donate: bool = False) -> F:
        return _jit(function, donate)

    def loop(self, body: Callable[..., Any]) -> Callable[..., Any]:
        return _loop(body) if self.shares_host_memory else _loop_of_chunks(body)

    def loop_of_models(self, body: Callable[..., Any]) -> Callable[..., Any]:
        # Train one model at a time, since one model's arrays fit in the cache and batched products
        # are slow.
        return _loop_of_models(body) if self.shares_host_memory else super().loop_of_models(body)

    def synchronize(self, tree: Tree | None = None) -> None:
        live = jax.live_arrays(self.device.platform) if tree is None else jax.tree.leaves(tree)
        for array in live:
            try:
                array.block_until_ready()
            except RuntimeError:
                if not array.is_deleted():  # Another thread may have donated this array.
                    raise

    def free_memory(self) -> int | None:
        statistics = self.device.memory_stats()
        if not statistics:
            return None
        return int(statistics["bytes_limit"] - statistics["bytes_in_use"])

    def describe(self) -> dict[str, str]:
        return super().describe() | {"device": f"{self.device}, {self.device.device_kind}"}


def _sum_rows_of_table(lines: Any, positions: Any, n_rows: int, *, xp: Namespace) -> Array:
    summed: Array = jax.ops.segment_sum(lines, positions, n_rows)
    return summed


def _gather(source: Source, *, dtype: DType, xp: Namespace) -> Any:
    """Compute `mlp_xp.backends.kernels.gather`, and store augmented images once.

    XLA would otherwise gather the pixels again at each use: with mixup, 512 CIFAR-10 images take 40
    ms instead of 4. XLA stores the result of `cond`, so the images are computed in a `cond` that is
    always true.
    """
    x, rows, scaling, pixel_map = source
    if pixel_map is None:
        return kernels.gather(source, dtype=dtype, xp=xp)

    def images() -> Any:
        return map_pixels(x if rows is None else xp.take(x, rows, axis=0), pixel_map, xp=xp)

    mask = 0 if pixel_map.mask is None else pixel_map.mask[0, 0, 0]
    # The condition is always true.
    is_there = pixel_map.lines[0, 0] + pixel_map.columns[0, 0] + mask >= 0
    like = jax.eval_shape(images)
    x = jax.lax.cond(is_there, images, lambda: xp.zeros(like.shape, like.dtype))
    return kernels.gather(Source(x, None, scaling), dtype=dtype, xp=xp)


_row = jax.jit(functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False))


@functools.lru_cache(maxsize=128)
def _jit(function: F, donate: bool) -> F:
    """Return the compiled function, shared by all fits with equal settings."""
    return jax.jit(function, donate_argnums=0 if donate else ())


@functools.lru_cache(maxsize=128)
def _loop(body: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled loop, shared by all fits with equal settings."""

    # `lax.scan` would be recompiled for each number of steps; `fori_loop` takes it as an argument.
    def run(start: Any, stop: Any, state: Any, *arguments: Any) -> Any:
        return jax.lax.fori_loop(start, stop, lambda i, now: body(i, now, *arguments), state)

    return jax.jit(run, donate_argnums=2)


def _run_chunk(body: Callable[..., Any], n: int, start: Any, state: Any, *arguments: Any) -> Any:
    return jax.lax.fori_loop(0, n, lambda i, now: body(start + i, now, *arguments), state)


@functools.lru_cache(maxsize=128)
def _loop_of_chunks(body: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loop over compiled chunks of steps.

    On a GPU, an XLA loop waits for the host at each step unless the number of steps is static.
    """
    run_chunk = jax.jit(functools.partial(_run_chunk, body), static_argnums=0, donate_argnums=2)

    def run(start: int, stop: int, state: Any, *arguments: Any) -> Any:
        while start < stop:
            n = next(n for n in _CHUNKS if n <= stop - start)
            state = run_chunk(n, np.int64(start), state, *arguments)
            start += n
        return state

    return run


@functools.lru_cache(maxsize=128)
def _loop_of_models(body: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled loop that trains one model after another."""

    def run(start: Any, stops: Any, state: Any, steps: Any, x: Any, y: Any, scaling: Any) -> Any:
        def train(model: Any, state: Any) -> Any:
            # A leading axis of length 1 shortens a step by a sixth.
            own, own_scaling = jax.tree.map(lambda leaf: leaf[model][None], (state, scaling))
            own_steps = jax.tree.map(lambda leaf: leaf[:, model][:, None], steps)
            own = jax.lax.fori_loop(
                start, stops[model], lambda i, now: body(i, now, own_steps, x, y, own_scaling), own
            )
            return jax.tree.map(lambda leaf, new: leaf.at[model].set(new[0]), state, own)

        return jax.lax.fori_loop(0, stops.shape[0], train, state)

    return jax.jit(run, donate_argnums=2)


def create(device: Any) -> JaxBackend:
    """Return the backend on a device: ``"cpu"``, ``"cuda"``, ``"cpu:1"``, or a `jax.Device`."""
    if device is None:
        return JaxBackend(jax.devices()[0])
    if isinstance(device, jax.Device):
        return JaxBackend(device)
    if not isinstance(device, str):
        raise ValueError(f"`device` must be e.g. 'cpu' or 'cuda:0' for JAX, got {device!r}.")
    platform, _, number = device.partition(":")
    try:
        devices = jax.devices(platform)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise BackendError(
            f"Device {device!r} does not work with jax on this machine: {reason}. "
            "`mlp-xp backends` lists the devices that work."
        ) from error
    index = int(number) if number.isdigit() else 0
    if (number and not number.isdigit()) or index >= len(devices):
        raise ValueError(f"`device` must be one of {list(map(str, devices))}, got {device!r}.")
    return JaxBackend(devices[index])
