"""Layers that process each number separately: embeddings, and a learned scale."""

from __future__ import annotations

import math
from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers._dense import per_sample, swap_rows
from mlp_xp.nn.layers._layer import LayerPullback, with_kinds


@with_kinds("scale")
class InputScale(NamedTuple):
    """Parameters of a feature scale: ``scale : (..., features)``."""

    scale: Array


@with_kinds("numeric", "numeric", "numeric", "numeric")
class Periodic(NamedTuple):
    """Parameters of periodic embeddings: waves for each number, and a dense layer over the waves.

    Shapes: ``frequency, phase : (..., numbers, waves)``, ``W : (..., numbers, waves, width)``, ``b
    : (..., numbers, width)``.
    """

    frequency: Array
    phase: Array
    W: Array
    b: Array


@with_kinds("vector", "vector", "numeric", "numeric", "numeric")
class Piecewise(NamedTuple):
    """Parameters of piecewise linear embeddings, and the pieces, which are not learned.

    ``per_unit`` is the reciprocal of a piece's length. Shapes: ``start, per_unit : (..., numbers,
    pieces)``, ``W : (..., numbers, pieces, width)``, ``slope, b : (..., numbers, width)``.
    """

    start: Array
    per_unit: Array
    W: Array
    slope: Array
    b: Array


def scale_inputs(params: InputScale, x: Array, *, xp: Namespace) -> tuple[Array, LayerPullback]:
    r"""Multiply each feature by a learned factor, :math:`y = x s`.

    So :math:`\bar s = \sum_i \bar y_i x_i` and :math:`\bar x = \bar y s`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import InputScale, scale_inputs
    >>> y, pullback = scale_inputs(InputScale(xp.asarray([2.0])), xp.asarray([[3.0]]), xp=xp)
    >>> y, pullback(xp.ones((1, 1)), need_dx=True)
    (array([[6.]]), (array([[2.]]), InputScale(scale=array([3.]))))
    """
    scale = per_sample(xp.astype(params.scale, x.dtype, copy=False))

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, InputScale]:
        return dy * scale if need_dx else None, InputScale(xp.sum(dy * x, axis=-2))

    return x * scale, pullback


def periodic(params: Periodic, x: Array, *, xp: Namespace) -> tuple[Array, LayerPullback]:
    r"""Embed each number as a dense layer over cosines with learned frequencies, plus the number.

    With :math:`u = 2 \pi \omega x + \varphi` and :math:`c = \cos u`, the embedding of a number is
    :math:`(c W + b, x)`. So :math:`\bar c = \bar y W^T`, :math:`\bar u = -\sin(u)\,\bar c`,
    :math:`\bar \omega = 2 \pi \sum_i x_i \bar u_i` and :math:`\bar\varphi = \sum_i \bar u_i`. In
    the result, (..., batch, numbers * (width + 1)), the last columns are the numbers themselves.

    References
    ----------
    Holzmüller, Grinsztajn, Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees
    on tabular data" (2024), arXiv:2407.04491, section 3; Gorishniy, Rubachev, Babenko, "On
    embeddings for numerical features in tabular deep learning" (2022), arXiv:2203.05556.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import Periodic, periodic
    >>> one = xp.ones((1, 1))
    >>> params = Periodic(one, 0 * one, xp.ones((1, 1, 2)), xp.zeros((1, 2)))
    >>> y, _ = periodic(params, xp.asarray([[1.0]]), xp=xp)
    >>> y
    array([[1., 1., 1.]])
    """
    omega, phase, W, b = (xp.astype(leaf, x.dtype, copy=False) for leaf in params)
    lines = xp.matrix_transpose(x)[..., None]  # (..., numbers, batch, 1)
    u = lines * (2.0 * math.pi * omega)[..., None, :]
    u += phase[..., None, :]
    waves = xp.cos(u)
    embedded = xp.matmul(waves, W)
    embedded += b[..., None, :]
    n_outputs = W.shape[-3] * W.shape[-1]

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Periodic]:
        dembedded = _by_number(dy[..., :n_outputs], W.shape[-1], xp=xp)
        du = xp.matmul(dembedded, xp.matrix_transpose(W))
        du *= xp.sin(u)
        du *= -1.0
        dx = None
        if need_dx:
            dlines = xp.sum(du * (2.0 * math.pi * omega)[..., None, :], axis=-1)
            dx = xp.matrix_transpose(dlines) + dy[..., n_outputs:]
        domega = xp.sum(du * lines, axis=-2)
        domega *= 2.0 * math.pi
        dW = xp.matmul(xp.matrix_transpose(waves), dembedded)
        return dx, Periodic(domega, xp.sum(du, axis=-2), dW, xp.sum(dembedded, axis=-2))

    parts = [_by_sample(embedded, xp=xp), _of_models(x, embedded, xp=xp)]
    return xp.concat(parts, axis=-1), pullback


def piecewise(params: Piecewise, x: Array, *, xp: Namespace) -> tuple[Array, LayerPullback]:
    r"""Embed each number by a dense layer over the fractions of pieces that are below the number.

    The fraction of a piece that is below x is :math:`e = \min(\max((x - s) / l, 0), 1)`, for a
    piece of length l that starts at s. The embedding is :math:`e W + x a + b`. So :math:`\bar e =
    \bar y W^T` and :math:`\bar x = \sum \bar e / l\,[0 < e < 1] + \sum \bar y a`. A piece of length
    0 has :math:`1 / l = 0`.

    References
    ----------
    Gorishniy, Rubachev, Babenko, "On embeddings for numerical features in tabular deep learning"
    (2022), arXiv:2203.05556, section 3.1.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import Piecewise, piecewise
    >>> start, ones, none = xp.asarray([[0.0, 1.0]]), xp.ones((1, 2)), xp.zeros((1, 2))
    >>> params = Piecewise(start, ones, xp.asarray([[[1.0, 0.0], [0.0, 1.0]]]), none, none)
    >>> piecewise(params, xp.asarray([[0.5], [1.25]]), xp=xp)[0]
    array([[0.5 , 0.  ],
           [1.  , 0.25]])
    """
    start, per_unit, W, slope, b = (xp.astype(leaf, x.dtype, copy=False) for leaf in params)
    lines = xp.matrix_transpose(x)[..., None]
    shares = lines - start[..., None, :]
    shares *= per_unit[..., None, :]
    shares = xp.minimum(xp.maximum(shares, 0.0), 1.0)
    y = xp.matmul(shares, W)
    y += lines * slope[..., None, :]
    y += b[..., None, :]

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Piecewise]:
        dy = _by_number(dy, W.shape[-1], xp=xp)
        dx = None
        if need_dx:
            dshares = xp.matmul(dy, xp.matrix_transpose(W))
            dshares *= xp.astype((shares > 0.0) & (shares < 1.0), x.dtype)
            dshares *= per_unit[..., None, :]
            dlines = xp.sum(dshares, axis=-1) + xp.sum(dy * slope[..., None, :], axis=-1)
            dx = xp.matrix_transpose(dlines)
        return dx, Piecewise(
            xp.zeros_like(params.start),
            xp.zeros_like(params.per_unit),
            xp.matmul(xp.matrix_transpose(shares), dy),
            xp.sum(dy * lines, axis=-2),
            xp.sum(dy, axis=-2),
        )

    return _by_sample(y, xp=xp), pullback


def _by_sample(y: Array, *, xp: Namespace) -> Array:
    """Reshape (..., numbers, batch, width) to (..., batch, numbers * width)."""
    *leading, n_numbers, n_samples, width = y.shape
    return xp.reshape(swap_rows(y, xp=xp), (*leading, n_samples, n_numbers * width))


def _by_number(dy: Array, width: int, *, xp: Namespace) -> Array:
    """Undo `_by_sample`."""
    *leading, n_samples, n_outputs = dy.shape
    return swap_rows(xp.reshape(dy, (*leading, n_samples, n_outputs // width, width)), xp=xp)


def _of_models(x: Array, y: Array, *, xp: Namespace) -> Array:
    """Return the numbers with the axes that count models, even if models share samples."""
    return x if x.ndim + 1 == y.ndim else xp.broadcast_to(x, (*y.shape[:-3], *x.shape[-2:]))
