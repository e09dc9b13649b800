"""Block-diagonal dense layers along any axes of an array of features."""

from __future__ import annotations

import math
from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers._dense import Dense, dense, per_sample, swap_rows
from mlp_xp.nn.layers._layer import LayerPullback


class Arrangement(NamedTuple):
    """The features that each block of a block-diagonal layer mixes.

    A row of features represents a C-contiguous array of ``shape``. Each position along the axes not
    in ``mixed`` has its own matrix, which mixes the features along ``mixed``. If ``width`` is
    given, each matrix has ``width`` outputs, which form the last axis. Otherwise, a matrix has one
    output per input, in the order of the inputs.
    """

    shape: tuple[int, ...]
    mixed: tuple[int, ...]
    width: int | None = None

    @property
    def kept(self) -> tuple[int, ...]:
        """The axes that are not mixed."""
        return tuple(i for i in range(len(self.shape)) if i not in self.mixed)

    @property
    def fan_in(self) -> int:
        """The number of inputs per block."""
        return math.prod(self.shape[i] for i in self.mixed)

    @property
    def fan_out(self) -> int:
        """The number of outputs per block."""
        return self.fan_in if self.width is None else self.width

    @property
    def blocks(self) -> int:
        """The number of blocks."""
        return math.prod(self.shape[i] for i in self.kept)

    @property
    def outputs(self) -> Arrangement:
        """The arrangement whose inputs are the outputs of this one."""
        if self.width is None:
            return self
        return Arrangement((self.blocks, self.width), (1,))

    def split(self, x: Array, *, xp: Namespace) -> Array:
        """Split rows, (..., batch, features), into blocks, (..., blocks, batch, fan_in)."""
        *leading, n_samples, _ = x.shape
        n = len(leading)
        order = (*range(n), *(n + 1 + i for i in self.kept), n, *(n + 1 + i for i in self.mixed))
        parts = xp.permute_dims(xp.reshape(x, (*leading, n_samples, *self.shape)), order)
        return xp.reshape(parts, (*leading, self.blocks, n_samples, self.fan_in))

    def join(self, y: Array, *, xp: Namespace) -> Array:
        """Join outputs of blocks, (..., blocks, batch, fan_out), to (..., batch, outputs)."""
        *leading, _, n_samples, _ = y.shape
        shape = *leading, n_samples, self.blocks * self.fan_out
        if self.width is not None:
            return xp.reshape(swap_rows(y, xp=xp), shape)
        axes = (*self.kept, -1, *self.mixed)  # The batch, -1, becomes the first of these axes.
        order = sorted(range(len(axes)), key=axes.__getitem__)
        sizes = (n_samples if axis < 0 else self.shape[axis] for axis in axes)
        parts = xp.reshape(y, (*leading, *sizes))
        n = len(leading)
        return xp.reshape(xp.permute_dims(parts, (*range(n), *(n + i for i in order))), shape)

    def unjoin(self, dy: Array, *, xp: Namespace) -> Array:
        """Undo `join`."""
        return self.outputs.split(dy, xp=xp)

    def unsplit(self, dx: Array, *, xp: Namespace) -> Array:
        """Undo `split`."""
        return self._replace(width=None).join(dx, xp=xp)


def block_dense(
    params: Dense, x: Array, arrangement: Arrangement, *, xp: Namespace
) -> tuple[Array, LayerPullback]:
    r"""Apply an affine map whose matrix is block-diagonal, after reordering the features.

    With :math:`x_k` the features of block k, :math:`y_k = x_k W_k + b_k`, so
    :math:`\bar W_k = x_k^T \bar y_k`, :math:`\bar b = \sum_i \bar y_i` and
    :math:`\bar x_k = \bar y_k W_k^T`. No weight is shared between blocks.

    If two such layers in sequence mix different axes, they connect every input with every output,
    with far fewer weights than a full matrix (a Monarch matrix).

    References
    ----------
    Dao et al., "Monarch: expressive structured matrices for efficient and accurate training"
    (2022), arXiv:2204.00595.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import Arrangement, Dense, block_dense
    >>> params = Dense(xp.ones((2, 3, 1)), xp.zeros(2))
    >>> x = xp.asarray([[0.0, 1.0, 2.0, 10.0, 11.0, 12.0]])
    >>> block_dense(params, x, Arrangement((2, 3), mixed=(1,), width=1), xp=xp)[0]
    array([[ 3., 33.]])
    """
    W = xp.astype(params.W, x.dtype, copy=False)
    parts = arrangement.split(x, xp=xp)
    b = per_sample(xp.astype(params.b, x.dtype, copy=False))
    y = arrangement.join(parts @ W, xp=xp) + b

    def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Dense]:
        dy = xp.astype(dy, x.dtype, copy=False)
        dparts = arrangement.unjoin(dy, xp=xp)
        dx = None
        if need_dx:
            dx = arrangement.unsplit(dparts @ xp.matrix_transpose(W), xp=xp)
        return dx, Dense(xp.matrix_transpose(parts) @ dparts, xp.sum(dy, axis=-2))

    return y, pullback


def affine(
    params: Dense, x: Array, arrangement: Arrangement | None = None, *, xp: Namespace
) -> tuple[Array, LayerPullback]:
    """Apply `dense` or, with an arrangement, `block_dense`."""
    if arrangement is None:
        return dense(params, x, xp=xp)
    return block_dense(params, x, arrangement, xp=xp)
