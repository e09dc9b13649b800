"""The sums over ranks in a step, of gradients, loss and accuracy, and the state that ranks share.

A loss is a weighted average over the batch. Each rank multiplies its average over its own rows by
their part of the batch's weight, so that plain sums over ranks are the numbers of the whole batch.
Without ranks the functions return their arguments.
"""

from __future__ import annotations

from typing import Any

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import Backend
from mlp_xp.backends.kernels import Kernels
from mlp_xp.nn.layers import sum_in_pairs
from mlp_xp.nn.network import Params
from mlp_xp.optimizers import Optimizer

__all__ = ["parts_of_batch", "shared", "summed"]


def parts_of_batch(averages: Tree, part: Array | None) -> Tree:
    """Return averages over this rank's rows as parts of those over the batch of all ranks.

    Examples
    --------
    >>> from mlp_xp.training.step.rank_sums import parts_of_batch
    >>> parts_of_batch((4.0, (8.0,)), 0.25), parts_of_batch(4.0, None)
    ((1.0, (2.0,)), 4.0)
    """
    return averages if part is None else map_leaves(lambda average: average * part, averages)


def summed(kernels: Kernels, params: Params, grads: Tree, averages: Tree, *, xp: Namespace) -> Tree:
    """Return gradients and averages summed over all ranks, in the dtype of the parameters.

    16 bits would lose some. With virtual shards, averages have an entry for each.
    """
    if kernels.sum_over_ranks is None:
        return grads, averages
    if kernels.n_shards:
        averages = map_leaves(lambda of_shards: sum_in_pairs(_entries(of_shards)), averages)
    dtype = next(leaves(params)).dtype
    tree = map_leaves(lambda leaf: xp.astype(leaf, dtype, copy=False), (grads, averages))
    return kernels.sum_over_ranks(tree)


def shared(state: Any, optimizer: Optimizer, backend: Backend) -> Any:
    """Return a `TrainState` in memory that ranks of a machine may share; all ranks call this."""
    params, opt_state = backend.share(optimizer, state.params, state.opt_state)
    return state._replace(params=params, opt_state=opt_state)


def _entries(array: Array) -> list[Array]:
    return [array[i] for i in range(array.shape[0])]
