"""The dense layer."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from mlp_xp._utils.array_types import Array, Namespace

__all__ = ["Dense", "DensePullback", "dense"]


class Dense(NamedTuple):
    """Parameters of a dense layer: ``W : (fan_in, fan_out)`` and ``b : (fan_out,)``."""

    W: Array
    b: Array


class DensePullback(Protocol):
    """``dy : (batch, fan_out)`` to ``dx : (batch, fan_in)``, or None, and the gradients."""

    def __call__(self, dy: Array, *, need_dx: bool) -> tuple[Array | None, Dense]:
        """Give the gradients with respect to the input and to the parameters."""
        ...


def dense(params: Dense, x: Array, *, xp: Namespace) -> tuple[Array, DensePullback]:
    r"""Affine map, :math:`y = x W + b`.

    With :math:`\bar y = \partial L / \partial y`, the chain rule gives
    :math:`\bar W = x^T \bar y`, :math:`\bar b = \sum_i \bar y_i` and :math:`\bar x = \bar y W^T`.

    Parameters
    ----------
    params : Dense
        ``W : (fan_in, fan_out)`` and ``b : (fan_out,)``, real floating.
    x : (batch, fan_in)
        Products are done, and results given, in its dtype.
    xp : namespace
        The arrays' namespace.

    Returns
    -------
    y : (batch, fan_out)
    pullback : callable
        ``pullback(dy, need_dx=...)`` gives ``(dx, Dense(dW, db))``; ``dx`` is None unless needed.
        Without it the first layer saves the largest product of the whole backward pass.

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
    y += b

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Dense]:
        dy = xp.astype(dy, x.dtype, copy=False)
        dx = None
        if need_dx:
            # A BLAS takes several times as long for a single output as the products alone.
            dx = dy * W.T if W.shape[-1] == 1 else dy @ W.T
        return dx, Dense(x.T @ dy, xp.sum(dy, axis=0))

    return y, pullback
