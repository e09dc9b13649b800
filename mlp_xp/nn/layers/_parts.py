"""Sums over a batch or a part of a batch, and the weights of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.tree import leaves, rebuild


class BatchPart(NamedTuple):
    """A part of a batch; other processes or devices compute the other parts.

    ``fraction``, 0-d, is the part's fraction of the batch's total weight. ``sum`` sums a tree of
    arrays over all parts, and may overwrite the arrays. If ``n_shards`` is at least 1, rows are
    summed in this number of virtual shards, and ``fraction`` is the fraction of a single row of
    weight 1.
    """

    fraction: Array
    sum: Callable[[Tree], Tree]
    n_shards: int = 0


def sum_in_pairs(trees: Sequence[Tree]) -> Tree:
    """Return the sum of trees: first the sums of pairs, then the sums of pairs of sums, and so on.

    If the number of trees is a power of two, the halves may be summed on different devices.
    """
    while len(trees) > 1:
        sums = [
            rebuild(one, [a + b for a, b in zip(leaves(one), leaves(other), strict=True)])
            for one, other in zip(trees[::2], trees[1::2], strict=False)
        ]
        trees = [*sums, *trees[len(sums) * 2 :]]
    return trees[0]


def cut_rows(x: Array, n_shards: int) -> list[Array]:
    """Split the rows of an array into equal parts."""
    n = x.shape[0] // n_shards
    return [x[i * n : (i + 1) * n, ...] for i in range(n_shards)]


def sum_rows(x: Array, n_shards: int, *, xp: Namespace) -> Array:
    """Return the column sums, (..., columns): first within shards, then over pairs of shards."""
    if n_shards <= 1:
        return xp.sum(x, axis=-2)
    return sum_in_pairs([xp.sum(part, axis=-2) for part in cut_rows(x, n_shards)])


def shares(weights: Array | None, n_samples: int, *, xp: Namespace) -> Array | float:
    """Return the normalized weight of each sample, ``w / sum(w)`` as a column, or ``1 / n``.

    ``weights : (..., batch)`` give ``(..., batch, 1)``. If all weights of a batch are 0, the
    normalized weights are also 0.
    """
    if weights is None:
        return 1.0 / n_samples
    least = float(xp.finfo(weights.dtype).smallest_normal)
    return (weights / xp.maximum(xp.sum(weights, axis=-1, keepdims=True), least))[..., None]
