"""The PyTorch backend, for CPUs and for GPUs with CUDA, XPU (Intel) or MPS (Apple)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp.backends._base import Backend, BackendError
from mlp_xp.backends._cuda import pinned as _pinned
from mlp_xp.backends._cuda.captured import CapturedLoop
from mlp_xp.backends._precision import LOW_PRECISIONS, check_capability, lacking
from mlp_xp.backends._torch import kernels, namespace
from mlp_xp.backends._torch.captured import TorchGraphs
from mlp_xp.backends._torch.copier import Copier
from mlp_xp.backends.kernels import Kernels

# Arrays above this size in bytes are data sets; pinned copies would double the required host
# memory.
_PINNED_BYTES = 2**26


class TorchBackend(Backend):
    """PyTorch on one device."""

    name = "torch"
    xp = namespace

    kernels = Kernels(
        dense=kernels.dense,
        gather=kernels.gather,
        update=kernels.update_tree,
        activate=kernels.activate,
        sum_rows_of_table=kernels.sum_rows_of_table,
    )

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.shares_host_memory = device.type == "cpu"

    def owns(self, array: object) -> bool:
        return isinstance(array, torch.Tensor)

    def get(self, array: Any) -> np.ndarray:
        array = array.detach().cpu()
        # NumPy has no bfloat16, but float32 can represent every bfloat16 number.
        return (array.float() if array.dtype == torch.bfloat16 else array).numpy()

    def _move(self, array: Any) -> Array:
        return array.detach().to(self.device)

    def _from_numpy(self, array: np.ndarray) -> Array:
        # Copy if needed: torch does not support negative strides, and warns about read-only memory.
        array = np.ascontiguousarray(array).reshape(array.shape)
        if not array.flags.writeable:
            array = array.copy()
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda" and 0 < array.nbytes <= _PINNED_BYTES:
            # Copying unpinned memory would block the host until all work on the device is done.
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return self._move(tensor)

    def contiguous(self, array: Any) -> Array:
        return array.contiguous()

    @property
    def has_float64(self) -> bool:
        if self.device.type == "xpu":  # Intel's Arc GPUs lack float64.
            return bool(torch.xpu.get_device_properties(self.device).has_fp64)
        return bool(self.device.type != "mps")

    def _check_products(self, precision: str) -> None:
        if self.device.type == "cuda":
            capability = torch.cuda.get_device_capability(self.device)
            check_capability(self.name, self.device, precision, capability)
            return
        if self.emulates(precision):
            warnings.warn(
                f"precision={precision!r} is about 400 times as slow as float32 in PyTorch on this "
                "processor, which lacks AVX-512: use precision='float32', or backend='jax'.",
                RuntimeWarning,
                stacklevel=2,
            )
        if precision == "tf32":
            raise lacking(
                self.name, self.device, precision, "device='cuda', or precision='float32'"
            )
        try:
            dtype = getattr(torch, LOW_PRECISIONS[precision])
            one = torch.ones((1, 1), dtype=dtype, device=self.device)
            torch.mm(one, one)
        except (RuntimeError, TypeError) as error:
            reason = f" ({str(error).partition(chr(10))[0]})"
            raise lacking(
                self.name, self.device, precision, "precision='float32'", reason
            ) from error

    def emulates(self, precision: str) -> bool:
        # PyTorch uses oneDNN for products in bfloat16, which needs AVX-512 on x86.
        is_slow = torch.backends.cpu.get_cpu_capability() == "AVX2"
        return precision == "bf16" and self.device.type == "cpu" and is_slow

    def scope(self) -> contextlib.AbstractContextManager[object]:
        # Use no_grad, since results of inference_mode could not be used in a caller's autograd
        # graph.
        is_cuda = self.device.type == "cuda"
        return _tf32(self.precision == "tf32") if is_cuda else torch.no_grad()

    def loop(self, body: Callable[..., Any]) -> Callable[..., Any] | None:
        if self.device.type != "cuda":
            return None
        return CapturedLoop(body, TorchGraphs(self.xp, self.device))

    def synchronize(self, tree: Tree | None = None) -> None:
        if self.device.type in ("cuda", "xpu"):
            # Waiting for the whole device would abort another thread's capture.
            self._module.current_stream(self.device).synchronize()
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
        if self.device.type == "mps":
            return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
        if self.device.type not in ("cuda", "xpu"):
            return None
        reserved = self._module.memory_reserved(self.device)
        # Memory that torch has reserved but does not use.
        reusable = reserved - self._module.memory_allocated(self.device)
        return int(self._module.mem_get_info(self.device)[0] + reusable)

    def describe(self) -> dict[str, str]:
        info = super().describe() | {"threads": str(torch.get_num_threads())}
        if self.device.type in ("cuda", "xpu"):
            info["device"] = f"{self.device}, {self._module.get_device_name(self.device)}"
        if self.device.type == "cuda":
            info["cuda"] = str(torch.version.cuda)
        return info

    @property
    def _module(self) -> Any:
        """The torch module for this type of device, e.g. ``torch.cuda``."""
        return getattr(torch, self.device.type)


@contextlib.contextmanager
def _tf32(is_wanted: bool) -> Iterator[None]:
    """Disable autograd, and allow or forbid TF32 in CUDA matrix products, within this context."""
    products = torch.backends.cuda.matmul
    is_new = hasattr(products, "fp32_precision")  # This attribute exists in torch 2.9 or later.
    name, on, off = ("fp32_precision", "tf32", "ieee") if is_new else ("allow_tf32", True, False)
    former = getattr(products, name)
    if (former == on) != is_wanted:
        setattr(products, name, on if is_wanted else off)
    try:
        with torch.no_grad():
            yield
    finally:
        if (former == on) != is_wanted:
            setattr(products, name, former)


def create(device: Any) -> TorchBackend:
    """Return the backend on a device, by default torch's default device."""
    if device is None:
        return TorchBackend(torch.get_default_device())
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            "`device` must be a torch device such as 'cpu', 'cuda:0', 'xpu' or 'mps', got "
            f"{device!r}."
        ) from error
    try:
        # Allocate memory to detect a missing driver, a wrong build or a wrong device number.
        device = torch.empty(1, device=device).device  # This turns "cuda" into "cuda:0".
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise BackendError(
            f"Device '{device}' does not work with torch on this machine: {reason}. "
            "`mlp-xp backends` lists the devices that work."
        ) from error
    return TorchBackend(device)
