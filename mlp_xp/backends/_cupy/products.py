"""Dense layers by products of cuBLASLt, which add the bias and sum its gradient on the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cupy

from mlp_xp._utils.array_types import Namespace
from mlp_xp.backends._cupy.cublaslt import multiply
from mlp_xp.nn import layers
from mlp_xp.nn.layers import Arrangement, Dense, per_sample

__all__ = ["dense_in"]


@cache
def dense_in(precision: str | None) -> Callable[..., tuple[Any, Callable[..., Any]]]:
    """Return the kernel of dense layers whose products of float32 are in a precision.

    It takes as many launches as a layer has products: one forward, two backward. Where cuBLASLt has
    no such product, CuPy computes it by cuBLAS.
    """

    def product(a: Any, b: Any) -> Any:
        out = multiply(a, b, precision=precision)
        return a @ b if out is None else out

    def dense(
        params: Dense, x: Any, arrangement: Arrangement | None = None, *, xp: Namespace
    ) -> tuple[Any, Callable[..., Any]]:
        """Compute `mlp_xp.nn.layers.affine`."""
        if not isinstance(x, cupy.ndarray):  # Sparse rows.
            return layers.affine(params, x, arrangement, xp=xp)
        W, b = params
        if W.dtype != x.dtype:  # A microsecond of the host, asked of each layer.
            W, b = (xp.astype(leaf, x.dtype, copy=False) for leaf in params)
        if arrangement is not None or x.ndim > 2 or b.ndim > 1:
            return _dense_of_stack(W, b, x, arrangement, product, xp=xp)
        y = multiply(x, W, precision=precision, bias=b)
        if y is None:
            y = product(x, W)
            y += b

        def pullback(dy: Any, *, need_dx: bool) -> tuple[Any, Dense]:
            dy = dy if dy.dtype == x.dtype else xp.astype(dy, x.dtype, copy=False)
            db = cupy.empty(b.shape, b.dtype)
            dW = multiply(x.T, dy, precision=precision, sums=db)
            if dW is None:
                dW, db = product(x.T, dy), xp.sum(dy, axis=-2)
            return product(dy, W.T) if need_dx else None, Dense(dW, db)

        return y, pullback

    return dense


def _dense_of_stack(
    W: Any,
    b: Any,
    x: Any,
    arrangement: Arrangement | None,
    product: Callable[[Any, Any], Any],
    *,
    xp: Namespace,
) -> tuple[Any, Callable[..., Any]]:
    """Compute `layers.affine` of models with leading axes, or of blocks: many products in one."""
    parts = x if arrangement is None else arrangement.split(x, xp=xp)
    y = product(parts, W)
    if arrangement is not None:
        y = arrangement.join(y, xp=xp)
    y += per_sample(b)

    def pullback(dy: Any, *, need_dx: bool) -> tuple[Any, Dense]:
        dy = xp.astype(dy, x.dtype, copy=False)
        dparts = dy if arrangement is None else arrangement.unjoin(dy, xp=xp)
        dx = product(dparts, xp.matrix_transpose(W)) if need_dx else None
        if dx is not None and arrangement is not None:
            dx = arrangement.unsplit(dx, xp=xp)
        dW = product(xp.matrix_transpose(parts), dparts)
        return dx, Dense(dW, xp.sum(dy, axis=-2))

    return y, pullback
