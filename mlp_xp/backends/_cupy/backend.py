"""The CuPy backend: few kernel launches per step, and batches copied while the GPU computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import cupy
import cupyx
import numpy as np

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp._utils.optional import install_command
from mlp_xp.backends._base import Backend
from mlp_xp.backends._cuda import pinned as _pinned
from mlp_xp.backends._cuda.captured import CapturedLoop
from mlp_xp.backends._cupy import namespace
from mlp_xp.backends._cupy.captured import CupyGraphs
from mlp_xp.backends._cupy.cublaslt import is_usable
from mlp_xp.backends._cupy.kernels.embedding import sum_rows_of_table
from mlp_xp.backends._cupy.kernels.gather import gather
from mlp_xp.backends._cupy.kernels.layers import activate, batch_norm, dropout, layer_norm
from mlp_xp.backends._cupy.kernels.losses import accumulate, loss, mean_accuracy
from mlp_xp.backends._cupy.kernels.update import averaged, clip, update_tree
from mlp_xp.backends._cupy.probing import no_gpu, prove
from mlp_xp.backends._cupy.products import dense_in
from mlp_xp.backends._precision import check_capability, lacking
from mlp_xp.backends.kernels import Kernels

# Arrays above this size in bytes are not pinned: CuPy rounds pinned memory up to a power of two and
# never frees it.
_MOST_PINNED = 1 << 26


class CupyBackend(Backend):
    """CuPy on one CUDA device."""

    name = "cupy"
    has_sparse_products = True
    xp = namespace
    kernels = Kernels(
        dense=dense_in(None),
        gather=gather,
        loss=loss,
        update=update_tree,
        activate=activate,
        dropout=dropout,
        layer_norm=layer_norm,
        batch_norm=batch_norm,
        average=averaged,
        accuracy=mean_accuracy,
        accumulate=accumulate,
        clip=clip,
        sum_rows_of_table=sum_rows_of_table,
    )

    def __init__(self, device: cupy.cuda.Device) -> None:
        self.device = device

    def owns(self, array: object) -> bool:
        return isinstance(array, cupy.ndarray)

    def put(self, array: Any, dtype: str | None = None) -> Array:
        with self.device:
            return super().put(array, dtype)

    def get(self, array: Any) -> np.ndarray:
        return cupy.asnumpy(array)

    def _move(self, array: Any) -> Array:
        if array.device.id != self.device.id and not array.flags.forc:
            return array.copy("C")  # `asarray` copies only contiguous arrays between devices.
        return cupy.asarray(array)

    def _from_numpy(self, array: np.ndarray) -> Array:
        if array.nbytes > _MOST_PINNED:
            copy = cupy.empty(array.shape, array.dtype)
            copy.set(array)  # `set` waits until the copy is complete.
            return copy
        # `asarray` copies asynchronously, through pinned memory. The default order would keep
        # column-major arrays.
        return cupy.asarray(array, order="C")

    def contiguous(self, array: Any) -> Array:
        with self.device:
            return cupy.ascontiguousarray(array)

    def _check_products(self, precision: str) -> None:
        name, device = self.name, f"cuda:{self.device.id}"
        version = self.device.compute_capability  # For example, "90" means compute capability 9.0.
        check_capability(name, device, precision, (int(version[:-1]), int(version[-1])))
        if not is_usable():
            command = install_command(f"cuda{cupy.cuda.runtime.runtimeGetVersion() // 1000}")
            cure = f"precision='float32', or type {command}"
            raise lacking(name, device, precision, cure, " without cuBLASLt")

    def _kernels_in(self, precision: str) -> Kernels:
        return replace(self.kernels, dense=dense_in(precision))

    def scope(self) -> contextlib.AbstractContextManager[object]:
        return self.device

    def loop(self, body: Callable[..., Any]) -> Callable[..., Any] | None:
        return CapturedLoop(body, CupyGraphs(self.xp, self.device))

    def synchronize(self, tree: Tree | None = None) -> None:
        with self.device:  # Waiting for the whole device would end another thread's capture.
            cupy.cuda.get_current_stream().synchronize()

    def feed(self, batches: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
        return _pinned.feed(_Copier(self.device), batches)

    def collect(self, arrays: Iterable[Array]) -> Iterator[np.ndarray]:
        return _pinned.collect(_Copier(self.device), arrays)

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


class _Copier:
    """Pinned memory, streams and events on one device, for `mlp_xp.backends._cuda.pinned`."""

    def __init__(self, device: cupy.cuda.Device) -> None:
        self._device = device

    def scope(self) -> contextlib.AbstractContextManager[object]:
        return self._device

    def compute_stream(self) -> Any:
        return cupy.cuda.get_current_stream()

    def copy_stream(self) -> Any:
        return cupy.cuda.Stream(non_blocking=True)

    def event(self) -> Any:
        return cupy.cuda.Event(disable_timing=True)

    def allocate(self, like: np.ndarray) -> tuple[np.ndarray, Any]:
        return cupyx.empty_pinned(like.shape, like.dtype), cupy.empty(like.shape, like.dtype)

    def upload(self, source: np.ndarray, target: Any, stream: Any) -> None:
        target.set(source, stream=stream)

    def download(self, source: Any, stream: Any) -> np.ndarray:
        pinned = cupyx.empty_pinned(source.shape, source.dtype)
        return source.get(stream=stream, out=pinned, blocking=False)


def create(device: Any) -> CupyBackend:
    """Return the backend on a device: ``"cuda"``, ``"cuda:1"``, a number, or CuPy's ``Device``."""
    if not isinstance(device, cupy.cuda.Device):
        kind, _, number = str("cuda" if device is None else device).rpartition("cuda")
        number = number.removeprefix(":")
        if kind or (number and not number.isdigit()):
            raise ValueError(f"`device` must be e.g. 'cuda' or 'cuda:0' for CuPy, got {device!r}.")
    try:
        if not isinstance(device, cupy.cuda.Device):
            device = cupy.cuda.Device(int(number) if number else None)
    except Exception as error:
        raise no_gpu(error) from error
    prove(device.id)
    return CupyBackend(device)
