"""Products in a lower precision than the parameters, which stay in float32.

"bf16" and "float16" round the inputs of a step. A layer computes in the dtype of its input and
casts its parameters to it, so all later activations, products and gradients are in 16 bits. CuPy
casts around each product instead. "tf32" changes no arrays: products round their operands.
Parameters, optimizer state, the loss and the statistics of a normalization are always in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mlp_xp._utils.array_types import Array, Device, DType, Namespace
from mlp_xp.backends.kernels import Source

# The names of the number formats, by the names that estimators use.
LOW_PRECISIONS = {"tf32": "TF32", "bf16": "bfloat16", "float16": "float16"}
# The compute capability of the first NVIDIA GPUs with such products.
_CAPABILITIES = {"tf32": (8, 0), "bf16": (8, 0), "float16": (5, 3)}


@lru_cache
def rounded(gather: Callable[..., Array], name: str) -> Callable[..., Array]:
    """Return a gather whose float32 result is rounded to a 16-bit dtype."""

    def gather16(source: Source, *, dtype: DType, xp: Namespace) -> Any:
        batch = gather(source, dtype=dtype, xp=xp)
        return xp.astype(batch, getattr(xp, name)) if dtype == xp.float32 else batch

    return gather16


def lacking(name: str, device: Device, precision: str, cure: str, reason: str = "") -> ValueError:
    """Return the error for a device that does not support this precision."""
    return ValueError(
        f"precision is {precision!r}, and device {str(device)!r} of backend {name!r} has no "
        f"products in {LOW_PRECISIONS[precision]}{reason}: use {cure}."
    )


def check_capability(
    name: str, device: Device, precision: str, capability: tuple[int, int]
) -> None:
    """Raise ValueError if a CUDA device's compute capability does not support a precision."""
    needed = _CAPABILITIES[precision]
    if capability < needed:
        cure = "precision='float32'"
        if capability >= _CAPABILITIES["float16"]:
            cure = f"precision='float16' or {cure}"
        have, need = (".".join(map(str, version)) for version in (capability, needed))
        reason = f" (its compute capability is {have}, and they need {need})"
        raise lacking(name, device, precision, cure, reason)
