"""Products in bfloat16 for torch; everything else stays in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mlp_xp import layers
from mlp_xp._typing import Namespace
from mlp_xp.backends._torch_buffers import cast, empty
from mlp_xp.layers import Dense

__all__ = ["dense"]

_BF16 = torch.bfloat16


def dense(params: Dense, x: Any, *, xp: Namespace) -> tuple[Any, Callable[..., Any]]:
    """Do what `mlp_xp.layers.dense` does with operands rounded to bfloat16.

    The sums within a product are in float32 and are rounded once. Parameters, gradients and what
    goes from layer to layer are float32, so that a small update is not lost and no loss or
    normalisation is computed in 8 bits.
    """
    W, b = params
    if not W.dtype == b.dtype == x.dtype == torch.float32:
        return layers.dense(params, x, xp=xp)
    x16, W16 = cast(W, "x16", x, _BF16), cast(W, "W16", W, _BF16)
    out = (x.shape[0], W.shape[1])
    product = torch.mm(x16, W16, out=empty(W, "y16", out, _BF16))
    # Two operations that torch has in one dtype each are faster than one that mixes dtypes.
    y = cast(W, "y", product, W.dtype).add_(b)

    def pullback(dy: Any, *, need_dx: bool) -> tuple[Any, Dense]:
        dy16 = cast(W, "dy16", dy, _BF16)
        dx = None
        if need_dx:
            product = torch.mm(dy16, W16.T, out=empty(W, "dx16", tuple(x16.shape), _BF16))
            dx = cast(W, "dx", product, W.dtype)
        product = torch.mm(x16.T, dy16, out=empty(W, "dW16", tuple(W.shape), _BF16))
        return dx, Dense(cast(W, "dW", product, W.dtype), torch.sum(dy, 0))

    return y, pullback
