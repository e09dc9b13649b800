"""Dense layers in bfloat16 with plain NumPy, for fits that are too short for machine code.

As in the machine code, operands are rounded to bfloat16, and sums are computed in float32. Only the
order of summation differs.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mlp_xp._utils.array_types import Namespace
from mlp_xp.backends._numpy.kernels.writing import call
from mlp_xp.nn import layers
from mlp_xp.nn.layers import Arrangement, Dense, LayerPullback

Array: TypeAlias = Any  # A NumPy array or a traced array.


def affine_in_bfloat16(
    params: Dense, x: Array, arrangement: Arrangement | None = None, *, xp: Namespace
) -> tuple[Array, LayerPullback]:
    """Compute `mlp_xp.nn.layers.affine` for float32 arrays, with operands rounded to bfloat16."""
    W, b = params
    if W.dtype != np.float32 or x.dtype != np.float32:
        return layers.affine(params, x, arrangement, xp=xp)
    rounded = Dense(_rounded(W), b)
    y, pullback = layers.affine(rounded, _rounded(x), arrangement, xp=xp)

    def rounded_pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Dense]:
        dx, grads = pullback(_rounded(xp.astype(dy, x.dtype, copy=False)), need_dx=need_dx)
        return dx, Dense(grads.W, xp.sum(dy, axis=-2))

    return y, rounded_pullback


def _rounded(x: Array) -> Array:
    out = np.empty_like(x)
    call(round_to_bfloat16, x, out)
    return out


def round_to_bfloat16(x: np.ndarray, out: np.ndarray) -> None:
    """Round float32 values to the nearest bfloat16 (ties to even), stored as float32."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    odd = bits >> np.uint32(16) & np.uint32(1)
    nearest = (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
    out[...] = nearest.view(np.float32).reshape(x.shape)
    np.copyto(out, np.nan, where=np.isnan(x))
