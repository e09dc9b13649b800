"""CuPy on a CUDA GPU: few launches per step, and batches that are copied while it computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import array_api_compat.cupy
import cupy
import cupyx
import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp.backends._base import Backend, BackendError
from mlp_xp.backends._cupy.captured import CapturedLoop
from mlp_xp.backends._cupy.kernels import gather, update_tree
from mlp_xp.backends._cupy.products import dense_in
from mlp_xp.backends.kernels import Kernels

__all__ = ["CupyBackend", "create"]


class CupyBackend(Backend):
    """Arrays on one CUDA device."""

    name = "cupy"
    has_sparse_products = True
    xp = array_api_compat.cupy

    def __init__(self, device: cupy.cuda.Device) -> None:
        self.device = device
        self.kernels = Kernels(dense_in(None), gather=gather, update=update_tree)

    def owns(self, array: object) -> bool:
        return isinstance(array, cupy.ndarray)

    def put(self, array: Any, dtype: str | None = None) -> Array:
        with self.device:
            return super().put(array, dtype)

    def get(self, array: Any) -> np.ndarray:
        return cupy.asnumpy(array)

    def _move(self, array: Any) -> Array:
        # A copy only where the array is on another device than the current one.
        return cupy.asarray(array)

    def _from_numpy(self, array: np.ndarray) -> Array:
        return self._move(array)

    def scope(self) -> contextlib.AbstractContextManager[object]:
        return self.device

    def loop(self, body: Callable[..., Any]) -> Callable[..., Any]:
        return CapturedLoop(body, self.device)

    def synchronize(self) -> None:
        self.device.synchronize()

    def feed(self, batches: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
        """Copy through pinned buffers, in a stream of its own, one batch ahead of the computation.

        There are two sets of buffers. A set is filled again only when the computation on its last
        batch is done, and used only when its copy is done; events order both on the device. The
        host waits only for the pinned memory itself.
        """
        with self.device:
            compute, copy = cupy.cuda.get_current_stream(), cupy.cuda.Stream(non_blocking=True)
            ring = [_Buffers(), _Buffers()]
            previous = None
            try:
                for number, batch in enumerate(batches):
                    buffers = ring[number % 2]
                    buffers.upload(batch, compute, copy)
                    if previous is not None:
                        yield previous.hand_over(compute)
                        previous.used(compute)
                    previous = buffers
                if previous is not None:
                    yield previous.hand_over(compute)
            finally:
                # A batch may still be copied to buffers that are about to be freed.
                copy.synchronize()

    def free_memory(self) -> int | None:
        with self.device:
            pool = cupy.get_default_memory_pool()
            return int(self.device.mem_info[0] + pool.free_bytes())

    def describe(self) -> dict[str, str]:
        properties = cupy.cuda.runtime.getDeviceProperties(self.device.id)
        return super().describe() | {
            "device": f"cuda:{self.device.id}, {properties['name'].decode()}",
            "cuda": str(cupy.cuda.runtime.runtimeGetVersion()),
            "driver": str(cupy.cuda.runtime.driverGetVersion()),
        }


class _Buffers:
    """A batch in pinned host memory and on the device, with the events of its last use."""

    def __init__(self) -> None:
        self.pinned: list[np.ndarray] = []
        self.arrays: list[Any] = []
        self.rows: list[int] = []
        self.copied = cupy.cuda.Event(disable_timing=True)
        self.computed = cupy.cuda.Event(disable_timing=True)

    def upload(self, batch: tuple[np.ndarray, ...], compute: Any, copy: Any) -> None:
        """Start copying a batch to the device; a shorter one uses the front of the buffers."""
        if not self.pinned:
            self.pinned = [cupyx.empty_like_pinned(array) for array in batch]
            self.arrays = [cupy.empty(array.shape, array.dtype) for array in batch]
            # The pool may return memory that work queued on `compute` still reads.
            self.computed.record(compute)
        self.copied.synchronize()
        copy.wait_event(self.computed)
        self.rows = [len(array) for array in batch]
        for pinned, array, host in zip(self.pinned, self.arrays, batch, strict=True):
            pinned[: len(host)] = host
            array[: len(host)].set(pinned[: len(host)], stream=copy)
        self.copied.record(copy)

    def hand_over(self, compute: Any) -> tuple[Any, ...]:
        """Return the arrays for work that is queued on a stream from now on."""
        compute.wait_event(self.copied)
        return tuple(array[:n] for array, n in zip(self.arrays, self.rows, strict=True))

    def used(self, compute: Any) -> None:
        """Record that all work on the arrays has been queued."""
        self.computed.record(compute)


def create(device: Any) -> CupyBackend:
    """Return the backend on a device: ``"cuda"``, ``"cuda:1"``, a number, or one of CuPy's own."""
    if not isinstance(device, cupy.cuda.Device):
        kind, _, number = str("cuda" if device is None else device).rpartition("cuda")
        number = number.removeprefix(":")
        if kind or (number and not number.isdigit()):
            raise ValueError(f"device is {device!r}; backend 'cupy' takes 'cuda', 'cuda:0', ...")
    try:
        if not isinstance(device, cupy.cuda.Device):
            device = cupy.cuda.Device(int(number) if number else None)
        # CuPy imports, and makes a Device, without a GPU: the first allocation is what fails.
        with device:
            cupy.zeros(1, dtype=np.float32)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BackendError(
            f"Backend 'cupy' finds no usable GPU: {reason}. Check the driver with nvidia-smi, or "
            "use backend='numpy'."
        ) from error
    return CupyBackend(device)
