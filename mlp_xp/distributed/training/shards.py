"""Kernels that compute a batch in virtual shards, bitwise identical on any number of ranks.

A batch is split into shards with equal numbers of rows. Matrix products and sums are computed per
shard. Their results are summed in pairs, then in pairs of pairs and so on, first within a rank and
then over ranks. Activations are also computed per shard, since PyTorch rounds differently at the
end of an array, where elements do not fill a vector register. All other rowwise operations use all
rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp.backends.kernels import Kernels
from mlp_xp.nn.layers import cut_rows, sum_in_pairs


def in_shards(kernels: Kernels, n_shards: int) -> Kernels:
    """Return a step's kernels that compute matrix products and sums shard by shard."""

    def shards(*arrays: Array) -> Iterator[tuple[Array, ...]]:
        return zip(*(cut_rows(array, n_shards) for array in arrays), strict=True)

    def layer(
        function: Callable[..., Any], params: Tree, x: Array, *args: Any, xp: Namespace
    ) -> tuple[Array, Callable[..., tuple[Array | None, Tree]]]:
        parts = [function(params, shard, *args, xp=xp) for (shard,) in shards(x)]

        def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
            pairs = zip(parts, shards(dy), strict=True)
            pulled = [pull(shard, need_dx=need_dx) for (_, pull), (shard,) in pairs]
            dxs = [dx for dx, _ in pulled]
            dx = None if dxs[0] is None else _joined(dxs, xp)
            return dx, sum_in_pairs([grads for _, grads in pulled])

        return _joined([y for y, _ in parts], xp), pullback

    def run_layer(function: Callable[..., Any], *args: Any, xp: Namespace) -> Any:
        return layer(partial(kernels.run_layer, function), *args, xp=xp)

    def activate(
        activation: Any, x: Array, *, xp: Namespace
    ) -> tuple[Array, Callable[[Array], Array]]:
        parts = [kernels.activate(activation, shard, xp=xp) for (shard,) in shards(x)]

        def pullback(dy: Array) -> Array:
            pairs = zip(parts, shards(dy), strict=True)
            return _joined([pull(shard) for (_, pull), (shard,) in pairs], xp)

        return _joined([y for y, _ in parts], xp), pullback

    # Losses and accuracies are weighted sums over each shard's samples, (shards,), not averages.
    def loss(loss: Any, *arrays: Array, xp: Namespace) -> tuple[Array, Callable[[], Array]]:
        parts = [
            (kernels.loss(loss, *shard, xp=xp), xp.sum(shard[-1])) for shard in shards(*arrays)
        ]
        values = xp.stack([value * total for (value, _), total in parts])
        return values, lambda: _joined([pull() * total for (_, pull), total in parts], xp)

    def accuracy(loss: Any, *arrays: Array, xp: Namespace) -> Array:
        own = [(kernels.accuracy(loss, *shard, xp=xp), shard[-1]) for shard in shards(*arrays)]
        return xp.stack([value * xp.sum(weights) for value, weights in own])

    return replace(
        kernels,
        dense=partial(layer, kernels.dense),
        activate=activate,
        layer_norm=partial(layer, kernels.layer_norm),
        run_layer=run_layer,
        loss=loss,
        accuracy=accuracy,
    )


def _joined(parts: list[Array], xp: Namespace) -> Array:
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
