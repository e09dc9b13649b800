"""Dense layers with cuBLASLt, whose matrix products also add the bias and compute its gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cupy

from mlp_xp._utils.array_types import Namespace
from mlp_xp.backends._cupy.cublaslt import multiply
from mlp_xp.nn import layers
from mlp_xp.nn.layers import Arrangement, Dense, per_sample
from mlp_xp.nn.layers._dense import transpose


@cache
def dense_in(precision: str | None) -> Callable[..., tuple[Any, Callable[..., Any]]]:
    """Return the dense-layer kernel, which computes float32 products in this precision.

    Each product is one launch: one forward, two backward. Stacks of models and block-diagonal
    layers use batched products. For products that cuBLASLt does not support, CuPy uses cuBLAS.
    """

    def product(a: Any, b: Any) -> Any:
        out = multiply(a, b, precision=precision)
        return a @ b if out is None else out

    def dense(
        params: Dense, x: Any, arrangement: Arrangement | None = None, *, xp: Namespace
    ) -> tuple[Any, Callable[..., Any]]:
        """Compute `mlp_xp.nn.layers.affine`."""
        if not isinstance(x, cupy.ndarray):  # x is a sparse matrix.
            return layers.affine(params, x, arrangement, xp=xp)
        W, b = params
        if W.dtype != x.dtype:  # Skipping the cast saves 1 µs per layer.
            W, b = (xp.astype(leaf, x.dtype, copy=False) for leaf in params)
        is_plain = arrangement is None and x.ndim == 2 and b.ndim == 1
        parts = x if arrangement is None else arrangement.split(x, xp=xp)
        y = multiply(x, W, precision=precision, bias=b) if is_plain else None
        if y is None:
            y = product(parts, W)
            if arrangement is not None:
                y = arrangement.join(y, xp=xp)
            y += per_sample(b)

        def pullback(dy: Any, *, need_dx: bool) -> tuple[Any, Dense]:
            dy = dy if dy.dtype == x.dtype else xp.astype(dy, x.dtype, copy=False)
            dparts = dy if arrangement is None else arrangement.unjoin(dy, xp=xp)
            db: Any = cupy.empty(b.shape, b.dtype) if is_plain else None
            dW = multiply(x.T, dy, precision=precision, sums=db) if is_plain else None
            if dW is None:
                dW, db = product(transpose(parts, xp=xp), dparts), xp.sum(dy, axis=-2)
            dx: Any = product(dparts, transpose(W, xp=xp)) if need_dx else None
            if arrangement is not None and need_dx:
                dx = arrangement.unsplit(dx, xp=xp)
            return dx, Dense(dW, db)

        return y, pullback

    return dense
