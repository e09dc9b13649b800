"""Precision "bf16": the inputs of a step are rounded to bfloat16.

A layer computes in the dtype of its input and casts its parameters to it, so activations, products
and gradients are in bfloat16 from there on. Parameters, optimizer state, the loss and the
statistics of a normalization stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mlp_xp._utils.array_types import Array, DType, Namespace
from mlp_xp.augmentation import PixelMap
from mlp_xp.backends.kernels import Scaling

__all__ = ["rounded"]


@lru_cache
def rounded(gather: Callable[..., Array]) -> Callable[..., Array]:
    """Return a gather whose float32 result is rounded to bfloat16."""

    def gather16(
        x: Array,
        rows: Array | None,
        scaling: Scaling | None,
        pixel_map: PixelMap | None = None,
        *,
        dtype: DType,
        xp: Namespace,
    ) -> Any:
        batch = gather(x, rows, scaling, pixel_map, dtype=dtype, xp=xp)
        return xp.astype(batch, xp.bfloat16) if dtype == xp.float32 else batch

    return gather16
