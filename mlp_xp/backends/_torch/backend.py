"""PyTorch on a CPU, a CUDA GPU or Apple's MPS; no autograd graph is ever built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import array_api_compat.torch
import numpy as np
import torch

from mlp_xp._utils.array_types import Array
from mlp_xp.backends import _pinned
from mlp_xp.backends._base import Backend, BackendError
from mlp_xp.backends._bf16 import rounded
from mlp_xp.backends._torch import kernels
from mlp_xp.backends._torch.copier import Copier
from mlp_xp.backends.kernels import Kernels

__all__ = ["TorchBackend", "create"]


# Larger arrays are data that stay; a pinned copy would take as much of the host's memory.
_PINNED_BYTES = 2**26


class TorchBackend(Backend):
    """Tensors on one device."""

    name = "torch"
    xp = array_api_compat.torch

    kernels = Kernels(
        dense=kernels.dense,
        gather=kernels.gather,
        update=kernels.update_tree,
        activate=kernels.activate,
    )

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.shares_host_memory = device.type == "cpu"

    def owns(self, array: object) -> bool:
        return isinstance(array, torch.Tensor)

    def get(self, array: Any) -> np.ndarray:
        array = array.detach().cpu()
        # NumPy has no bfloat16; every bfloat16 number is a float32 number.
        return (array.float() if array.dtype == torch.bfloat16 else array).numpy()

    def _move(self, array: Any) -> Array:
        return array.detach().to(self.device)

    def _from_numpy(self, array: np.ndarray) -> Array:
        # torch has no read-only tensors, and warns when it shares memory that may not be written;
        # it has no negative strides either.
        array = np.ascontiguousarray(array).reshape(array.shape)
        if not array.flags.writeable:
            array = array.copy()
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda" and 0 < array.nbytes <= _PINNED_BYTES:
            # Other memory is copied only after all work on the device, and the host waits for it.
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return self._move(tensor)

    def contiguous(self, array: Any) -> Array:
        return array.contiguous()

    @property
    def has_float64(self) -> bool:
        return bool(self.device.type != "mps")

    def with_bf16(self) -> TorchBackend:
        backend = TorchBackend(self.device)
        backend.kernels = self.kernels._replace(gather=rounded(self.kernels.gather))
        return backend

    def scope(self) -> contextlib.AbstractContextManager[object]:
        # Not inference_mode: its results could never be used in a caller's autograd graph.
        return torch.no_grad()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def feed(self, batches: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
        if self.device.type != "cuda":
            return super().feed(batches)
        return _pinned.feed(Copier(self.device), batches)

    def collect(self, arrays: Iterable[Array]) -> Iterator[np.ndarray]:
        if self.device.type != "cuda":
            return super().collect(arrays)
        return _pinned.collect(Copier(self.device), arrays)

    def free_memory(self) -> int | None:
        if self.device.type != "cuda":
            return None
        reusable = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(
            self.device
        )
        return int(torch.cuda.mem_get_info(self.device)[0] + reusable)

    def describe(self) -> dict[str, str]:
        facts = super().describe() | {"threads": str(torch.get_num_threads())}
        if self.device.type == "cuda":
            facts["device"] = f"{self.device}, {torch.cuda.get_device_name(self.device)}"
            facts["cuda"] = str(torch.version.cuda)
        return facts


def create(device: Any) -> TorchBackend:
    """Return the backend on a device, by default torch's own default device."""
    if device is None:
        return TorchBackend(torch.get_default_device())
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device is {device!r}, which torch does not know; use e.g. 'cpu', 'cuda:0' or 'mps'."
        ) from error
    try:
        # The first allocation is what finds a missing driver, a wrong build or a wrong number.
        device = torch.empty(1, device=device).device  # With its number: "cuda" is "cuda:0".
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise BackendError(
            f"Device '{device}' does not work with torch here: {reason}; `mlp-xp backends` lists "
            "what works"
        ) from error
    return TorchBackend(device)
