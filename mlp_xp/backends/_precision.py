"""Mixed precision, where matrix products use a lower precision than the float32 parameters.

"bf16" and "float16" round the inputs of a step. A layer casts its parameters to the dtype of its
input, so all later activations, matrix products and gradients are 16-bit. The CuPy backend instead
casts the operands of each matrix product. "tf32" changes no arrays; the matrix products round their
operands. Parameters, optimizer state, the loss and normalization statistics are always in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mlp_xp._utils.array_types import Array, Device, DType, Namespace
from mlp_xp.backends.kernels import Source

# The dtype for each value of the estimators' `precision`.
LOW_PRECISIONS = {"tf32": "TF32", "bf16": "bfloat16", "float16": "float16"}
# The minimum compute capability of NVIDIA GPUs for each precision.
_CAPABILITIES = {"tf32": (8, 0), "bf16": (8, 0), "float16": (5, 3)}


@lru_cache
def rounded(gather: Callable[..., Array], name: str) -> Callable[..., Array]:
    """Wrap a gather function to round float32 results to a 16-bit dtype."""

    def gather16(source: Source, *, dtype: DType, xp: Namespace) -> Any:
        batch = gather(source, dtype=dtype, xp=xp)
        return xp.astype(batch, getattr(xp, name)) if dtype == xp.float32 else batch

    return gather16


def lacking(name: str, device: Device, precision: str, cure: str, reason: str = "") -> ValueError:
    """Return the error for a device that does not support this precision."""
    return ValueError(
        f"precision={precision!r} is not supported on device {str(device)!r} of backend "
        f"{name!r}{reason}: use {cure}."
    )


def check_capability(
    name: str, device: Device, precision: str, capability: tuple[int, int]
) -> None:
    """Raise ValueError if a CUDA device's compute capability is too low for a precision."""
    needed = _CAPABILITIES[precision]
    if capability < needed:
        cure = "precision='float32'"
        if capability >= _CAPABILITIES["float16"]:
            cure = f"precision='float16' or {cure}"
        have, need = (".".join(map(str, version)) for version in (capability, needed))
        reason = f"  (its compute capability is {have}, but {need} is required)"
        raise lacking(name, device, precision, cure, reason)
