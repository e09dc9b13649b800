"""Embeddings of categories: rows of a learned table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from array_api_compat import device

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.nn.layers._layer import LayerPullback, with_kinds


@with_kinds("embedding")
class Embedding(NamedTuple):
    """Parameters of embeddings: ``table : (..., rows, width)``, with the rows of all columns."""

    table: Array


def sum_rows_of_table(lines: Array, positions: Array, n_rows: int, *, xp: Namespace) -> Array:
    """Sum the gradients of each row of a table, (rows, width), using one-hot vectors."""
    rows = xp.arange(n_rows, dtype=positions.dtype, device=device(lines))
    return xp.matmul(xp.astype(rows[:, None] == positions[None, :], lines.dtype), lines)


def embed(
    params: Embedding,
    positions: Array,
    *,
    sum_rows: Callable[..., Array] = sum_rows_of_table,
    xp: Namespace,
) -> tuple[Array, LayerPullback]:
    r"""Gather rows of a table by integer positions, (..., batch, columns): :math:`y_{i} = E_{c_i}`.

    The gradient of a row is the sum over all positions that use the row, :math:`\bar E_r = \sum_{i
    : c_i = r} \bar y_i`. ``sum_rows`` is a backend's version of `sum_rows_of_table`.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.nn.layers import Embedding, embed
    >>> table = xp.asarray([[1.0], [2.0], [3.0]])
    >>> y, pullback = embed(Embedding(table), xp.asarray([[0, 2], [0, 1]]), xp=xp)
    >>> y
    array([[1., 3.],
           [1., 2.]])
    >>> pullback(y, need_dx=False)[1]
    Embedding(table=array([[2.],
           [2.],
           [3.]]))
    """
    *leading, n_rows, width = params.table.shape
    n_models = math.prod(leading)
    table = xp.reshape(params.table, (n_models * n_rows, width))
    if leading:
        common = *leading, *positions.shape[-2:]
        first = n_rows * xp.arange(n_models, dtype=positions.dtype, device=device(table))
        positions = xp.broadcast_to(positions, common) + xp.reshape(first, (*leading, 1, 1))
    flat = xp.reshape(positions, (-1,))
    shape = (*positions.shape[:-1], positions.shape[-1] * width)
    y = xp.reshape(xp.take(table, flat, axis=0), shape)

    def pullback(dy: Array, *, need_dx: bool) -> tuple[None, Embedding]:
        lines = xp.reshape(dy, (-1, width))
        summed = sum_rows(lines, flat, n_models * n_rows, xp=xp)
        return None, Embedding(xp.reshape(summed, params.table.shape))

    return y, pullback
