"""Dense layers for several networks, called members, that share weights, as in TabM."""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers._dense import swap_rows
from mlp_xp.nn.layers._layer import LayerPullback, with_kinds


@with_kinds("matrix", "vector", "vector", "vector")
class SharedDense(NamedTuple):
    """Parameters of a dense layer in which members share weights, but not scales and biases.

    All members share ``W : (..., fan_in, fan_out)``. Each member has its own input scales, ``r :
    (..., members, fan_in)``, and its own output scales and biases, ``s, b : (..., members,
    fan_out)``.
    """

    W: Array
    r: Array
    s: Array
    b: Array


@with_kinds("matrix", "vector")
class Heads(NamedTuple):
    """The output layers of all members: weights ``(..., members, fan_in, fan_out)``, and biases."""

    W: Array
    b: Array


def shared_dense(
    params: SharedDense, x: Array, is_first: bool = False, *, xp: Namespace
) -> tuple[Array, LayerPullback]:
    r"""Apply the affine map of each member, :math:`y_m = ((x_m \odot r_m) W) \odot s_m + b_m`.

    A single matrix product computes all members: row ``i * members + m`` is for sample i and member
    m. Only in the first layer, each row of the input is a sample, which all members share.

    References
    ----------
    Gorishniy, Kotelnikov, Babenko, "TabM: advancing tabular deep learning with parameter-efficient
    ensembling" (2025), arXiv:2410.24210; Wen, Tran, Ba, "BatchEnsemble" (2020), arXiv:2002.06715.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import SharedDense, shared_dense
    >>> signs, ones = xp.asarray([[1.0, 1.0], [1.0, -1.0]]), xp.ones((2, 1))
    >>> params = SharedDense(xp.ones((2, 1)), signs, ones, 0 * ones)
    >>> shared_dense(params, xp.asarray([[3.0, 2.0]]), True, xp=xp)[0]
    array([[5.],
           [1.]])
    """
    W, r, s, b = (xp.astype(leaf, x.dtype, copy=False) for leaf in params)
    (n_members, fan_in), fan_out = r.shape[-2:], W.shape[-1]
    own = x[..., None, :] if is_first else _by_member(x, n_members, fan_in, xp=xp)
    scaled = _in_rows(own * r[..., None, :, :], n_members, fan_in, xp=xp)
    product = _by_member(xp.matmul(scaled, W), n_members, fan_out, xp=xp)
    y = product * s[..., None, :, :] + b[..., None, :, :]

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, SharedDense]:
        dy = _by_member(xp.astype(dy, x.dtype, copy=False), n_members, fan_out, xp=xp)
        dproduct = _in_rows(dy * s[..., None, :, :], n_members, fan_out, xp=xp)
        dscaled = _by_member(xp.matmul(dproduct, xp.matrix_transpose(W)), n_members, fan_in, xp=xp)
        grads = SharedDense(
            xp.matmul(xp.matrix_transpose(scaled), dproduct),
            xp.sum(dscaled * own, axis=-3),
            xp.sum(dy * product, axis=-3),
            xp.sum(dy, axis=-3),
        )
        if not need_dx:
            return None, grads
        dx = dscaled * r[..., None, :, :]
        dx = xp.sum(dx, axis=-2) if is_first else _in_rows(dx, n_members, fan_in, xp=xp)
        return dx, grads

    return _in_rows(y, n_members, fan_out, xp=xp), pullback


def member_heads(params: Heads, x: Array, *, xp: Namespace) -> tuple[Array, LayerPullback]:
    r"""Apply the output layer of each member, :math:`y_m = x_m W_m + b_m`.

    The input has the rows of `shared_dense`. The result, (..., batch, members * fan_out), begins
    with all outputs of the first member.
    """
    W, b = (xp.astype(leaf, x.dtype, copy=False) for leaf in params)
    n_members, fan_in, fan_out = W.shape[-3:]
    own = swap_rows(_by_member(x, n_members, fan_in, xp=xp), xp=xp)  # (..., members, batch, fan_in)
    y = swap_rows(xp.matmul(own, W) + b[..., None, :], xp=xp)

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Heads]:
        dy = xp.astype(dy, x.dtype, copy=False)
        dy = swap_rows(xp.reshape(dy, (*dy.shape[:-1], n_members, fan_out)), xp=xp)
        grads = Heads(xp.matmul(xp.matrix_transpose(own), dy), xp.sum(dy, axis=-2))
        if not need_dx:
            return None, grads
        dx = swap_rows(xp.matmul(dy, xp.matrix_transpose(W)), xp=xp)
        return _in_rows(dx, n_members, fan_in, xp=xp), grads

    return xp.reshape(y, (*y.shape[:-2], n_members * fan_out)), pullback


def _by_member(x: Array, n_members: int, width: int, *, xp: Namespace) -> Array:
    """Reshape rows, (..., batch * members, width), to (..., batch, members, width)."""
    n_rows = None if x.shape[-2] is None else x.shape[-2] // n_members  # None in ONNX export
    return xp.reshape(x, (*x.shape[:-2], n_rows, n_members, width))


def _in_rows(x: Array, n_members: int, width: int, *, xp: Namespace) -> Array:
    """Reshape (..., batch, members, width) to rows, (..., batch * members, width)."""
    n_rows = None if x.shape[-3] is None else x.shape[-3] * n_members
    return xp.reshape(x, (*x.shape[:-3], n_rows, width))
