"""The dense layer."""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers._layer import LayerPullback


class Dense(NamedTuple):
    """Parameters of a dense layer: ``W : (..., fan_in, fan_out)`` and ``b : (..., fan_out)``."""

    W: Array
    b: Array


def dense(params: Dense, x: Array, *, xp: Namespace) -> tuple[Array, LayerPullback]:
    r"""Apply an affine map, :math:`y = x W + b`.

    With :math:`\bar y = \partial L / \partial y`, the chain rule gives :math:`\bar W = x^T \bar y`,
    :math:`\bar b = \sum_i \bar y_i` and :math:`\bar x = \bar y W^T`. The first layer skips
    :math:`\bar x`, which saves the largest matrix product of the backward pass.

    References
    ----------
    Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 6.5.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import Dense, dense
    >>> y, pullback = dense(Dense(xp.ones((2, 3)), xp.zeros(3)), xp.ones((1, 2)), xp=xp)
    >>> y
    array([[2., 2., 2.]])
    >>> dx, grads = pullback(xp.ones((1, 3)), need_dx=True)
    >>> dx, grads.b
    (array([[3., 3.]]), array([1., 1., 1.]))
    """
    W = xp.astype(params.W, x.dtype, copy=False)
    b = xp.astype(params.b, x.dtype, copy=False)
    y = x @ W
    y += per_sample(b)

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Dense]:
        dy = xp.astype(dy, x.dtype, copy=False)
        dx = None
        if need_dx:
            # For a single output, BLAS is several times slower than elementwise multiplication.
            W_t = transpose(W, xp=xp)
            dx = dy * W_t if W.shape[-1] == 1 else dy @ W_t
        return dx, Dense(transpose(x, xp=xp) @ dy, xp.sum(dy, axis=-2))

    return y, pullback


def per_sample(features: Array) -> Array:
    """Reshape ``features : (..., width)``, so they broadcast with ``(..., batch, width)``.

    A single model's features, ``(width,)``, are returned unchanged.
    """
    return features if features.ndim == 1 else features[..., None, :]


def transpose(matrix: Array, *, xp: Namespace) -> Array:
    """Transpose dense or sparse matrices; sparse matrices are never stacked, and have only `.T`."""
    return matrix.T if matrix.ndim == 2 else xp.matrix_transpose(matrix)


def swap_rows(x: Array, *, xp: Namespace) -> Array:
    """Swap the second-to-last and the third-to-last axes, e.g. batch and members."""
    n = x.ndim - 3
    return xp.permute_dims(x, (*range(n), n + 1, n, n + 2))
