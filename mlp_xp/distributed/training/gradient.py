"""The gradient of a batch on several ranks, each of which computes some of the rows.

A loss is a weighted average over the batch. Each rank multiplies the average over its rows by their
fraction of the batch's total weight. Sums over ranks are then the results for the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.augmentation import Augmentation
from mlp_xp.backends.kernels import Kernels
from mlp_xp.distributed.training.shards import in_shards
from mlp_xp.nn.layers import BatchPart, sum_in_pairs
from mlp_xp.nn.losses import Loss
from mlp_xp.nn.network import Network, Params
from mlp_xp.training.step.inputs import Batch, Selection
from mlp_xp.training.step.loss_scaling import LossScale, scale_loss_gradient
from mlp_xp.training.step.value_and_gradient import BatchGradient, value_and_gradient


@dataclass(frozen=True, eq=False)
class PendingSum:
    """A gradient whose sum over ranks has begun; it replaces the gradient's array in a tree.

    ``wait()`` waits until ``array`` contains the sum.
    """

    array: Array
    wait: Callable[..., None]


@dataclass(frozen=True)
class RankGradient:
    """The counterpart of `batch_gradient` for several ranks.

    ``sum_over_ranks`` sums a tree of donated float32 or float64 arrays over all ranks, with bitwise
    identical results. ``n_shards`` is the number of virtual shards per rank. The pullback of
    ``dense`` returns a `PendingSum` for each large gradient; it is the kernel ``final_dense``. If a
    step runs once per virtual shard, ``take_shard`` selects the rows of a shard in a tree of
    arrays, and ``n_shards`` is 1.
    """

    sum_over_ranks: Callable[[Tree], Tree]
    n_shards: int = 0
    dense: Callable[..., Any] | None = None
    take_shard: Callable[[Tree], Tree] | None = None

    def __call__(
        self,
        network: Network,
        loss: Loss,
        kernels: Kernels,
        augmentation: tuple[Augmentation, ...] = (),
        *,
        xp: Namespace,
    ) -> Callable[..., BatchGradient]:
        """Return the function that computes the gradient of a batch."""
        if self.n_shards:
            kernels = in_shards(kernels, self.n_shards)
        if self.dense is not None:
            kernels = replace(kernels, final_dense=self.dense)

        def gradient(
            params: Params, batch: Batch, scale: LossScale | tuple[()], *given: Any, **options: Any
        ) -> BatchGradient:
            batch = self._own_rows(batch)
            part = batch.selection.part
            assert part is not None
            own = self._kernels_of(kernels, part, batch.selection.positions)
            evaluate = value_and_gradient(network, loss, own, augmentation, xp=xp)
            found = evaluate(params, batch, *given, **options)
            value = loss.reported(found.loss, found.logits.shape[-1])
            averages = map_leaves(lambda average: average * part, (value, found.correct))
            grads = found.backward(scale_loss_gradient(found.pull_loss() * part, scale, xp=xp))
            grads, (value, correct) = self._sums(params, grads, averages, xp=xp)
            return BatchGradient(grads, value, correct, found.batch_stats)

        return gradient

    def _own_rows(self, batch: Batch) -> Batch:
        """Return a virtual shard's rows of a batch if a step runs once per shard."""
        if self.take_shard is None:
            return batch
        x, y, (rows, weights, draws, positions, part) = batch
        given = (x, y) if rows is None else rows
        taken, weights, draws, positions = self.take_shard((given, weights, draws, positions))
        if rows is None:
            x, y = taken
        else:
            rows = taken
        return Batch(x, y, Selection(rows, weights, draws, positions, part))

    def _kernels_of(self, kernels: Kernels, part: Array, positions: Array | None) -> Kernels:
        """Return kernels for batch normalization and dropout in one rank's part of a batch."""
        whole = BatchPart(part, self.sum_over_ranks, self.n_shards)
        return replace(
            kernels,
            batch_norm=partial(kernels.batch_norm, part=whole),
            dropout=partial(kernels.dropout, rows=positions),
        )

    def _sums(self, params: Params, grads: Tree, averages: Tree, *, xp: Namespace) -> Tree:
        """Sum the gradients and averages over all ranks in the parameters' dtype.

        Sums in 16 bits would lose precision. With virtual shards, averages have one entry per
        shard.
        """
        if self.n_shards:
            averages = map_leaves(lambda of_shards: sum_in_pairs(_entries(of_shards)), averages)
        dtype = leaves(params)[0].dtype

        def cast(leaf: Any) -> Any:
            is_pending = isinstance(leaf, PendingSum)
            return leaf if is_pending else xp.astype(leaf, dtype, copy=False)

        return self.sum_over_ranks(map_leaves(cast, (grads, averages)))


def _entries(array: Array) -> list[Array]:
    return [array[i] for i in range(array.shape[0])]
