"""Products in bfloat16 for JAX; everything else stays in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mlp_xp import layers
from mlp_xp._typing import Namespace
from mlp_xp.layers import Dense

__all__ = ["dense"]

# The operands have no more digits for a higher precision to use.
_product = partial(
    jnp.matmul, precision=jax.lax.Precision.DEFAULT, preferred_element_type=jnp.float32
)


def dense(params: Dense, x: Any, *, xp: Namespace) -> tuple[Any, Callable[..., Any]]:
    """Do what `mlp_xp.layers.dense` does with operands rounded to bfloat16; results are float32."""
    W: Any
    b: Any
    W, b = params
    if not W.dtype == b.dtype == x.dtype == jnp.float32:
        return layers.dense(params, x, xp=xp)
    x16, W16 = x.astype(jnp.bfloat16), W.astype(jnp.bfloat16)

    def pullback(dy: Any, *, need_dx: bool) -> tuple[Any, Dense]:
        dy16 = dy.astype(jnp.bfloat16)
        dx = _product(dy16, W16.T) if need_dx else None
        return dx, Dense(_product(x16.T, dy16), jnp.sum(dy, axis=0))

    return _product(x16, W16) + b, pullback
