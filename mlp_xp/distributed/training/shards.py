"""Kernels that compute a batch in virtual shards, with the same bits on any number of ranks.

A batch is cut into parts of the same number of rows, whose products and sums are computed one by
one, and summed in pairs, pairs of pairs and so on, on a rank and then over ranks. Activations too
are computed one by one: PyTorch rounds in another way at the end of an array, where numbers do not
fill a vector. What treats each row by itself, and rounds in one way, is computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp.backends.kernels import Kernels
from mlp_xp.nn.layers import cut_rows, sum_in_pairs


def in_shards(kernels: Kernels, n_shards: int) -> Kernels:
    """Return the kernels of a step, whose products and sums are computed shard by shard."""
    return kernels._replace(
        dense=_Layer(kernels.dense, n_shards),
        activate=_Activation(kernels.activate, n_shards),
        layer_norm=_Layer(kernels.layer_norm, n_shards),
        run_layer=_AnyLayer(kernels.run_layer, n_shards),
        loss=_Loss(kernels.loss, n_shards),
        accuracy=_Accuracy(kernels.accuracy, n_shards),
    )


def _shards(n_shards: int, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    return zip(*(cut_rows(array, n_shards) for array in arrays), strict=True)


def _joined(parts: list[Array], xp: Namespace) -> Array:
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)


@dataclass(frozen=True)
class _Layer:
    """A layer with parameters, whose rows do not depend on each other."""

    function: Callable[..., Any]
    n_shards: int

    def __call__(
        self, params: Tree, x: Array, *args: Any, xp: Namespace, **options: Any
    ) -> tuple[Array, Callable[..., tuple[Array | None, Tree]]]:
        """Compute the layer and its pullback."""
        shards = cut_rows(x, self.n_shards)
        parts = [self.function(params, shard, *args, xp=xp, **options) for shard in shards]

        def pullback(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
            pairs = zip(parts, cut_rows(dy, self.n_shards), strict=True)
            pulled = [pull(dy, need_dx=need_dx) for (_, pull), dy in pairs]
            dxs = [dx for dx, _ in pulled]
            dx = None if dxs[0] is None else _joined(dxs, xp)
            return dx, sum_in_pairs([grads for _, grads in pulled])

        return _joined([y for y, _ in parts], xp), pullback


@dataclass(frozen=True)
class _AnyLayer:
    """The layer of a function, likewise."""

    run_layer: Callable[..., Any]
    n_shards: int

    def __call__(
        self, function: Callable[..., Any], params: Tree, x: Array, *args: Any, xp: Namespace
    ) -> tuple[Array, Callable[..., tuple[Array | None, Tree]]]:
        """Compute the layer and its pullback."""
        layer = _Layer(partial(self.run_layer, function), self.n_shards)
        y, pullback = layer(params, x, *args, xp=xp)
        return y, pullback


@dataclass(frozen=True)
class _Activation:
    """An activation."""

    function: Callable[..., Any]
    n_shards: int

    def __call__(
        self, activation: Any, x: Array, *, xp: Namespace
    ) -> tuple[Array, Callable[[Array], Array]]:
        """Compute the activation and its pullback."""
        shards = cut_rows(x, self.n_shards)
        parts = [self.function(activation, shard, xp=xp) for shard in shards]

        def pullback(dy: Array) -> Array:
            pairs = zip(parts, cut_rows(dy, self.n_shards), strict=True)
            return _joined([pull(dy) for (_, pull), dy in pairs], xp)

        return _joined([y for y, _ in parts], xp), pullback


@dataclass(frozen=True)
class _Loss:
    """The loss as weighted sums of the samples of each shard, not their average."""

    function: Callable[..., Any]
    n_shards: int

    def __call__(
        self, loss: Any, logits: Array, targets: Array, weights: Array, *, xp: Namespace
    ) -> tuple[Array, Callable[[], Array]]:
        """Compute the sums, (shards,), and their pullback."""
        shards = _shards(self.n_shards, logits, targets, weights)
        parts = [(self.function(loss, *shard, xp=xp), xp.sum(shard[-1])) for shard in shards]
        values = xp.stack([value * total for (value, _), total in parts])
        return values, lambda: _joined([pull() * total for (_, pull), total in parts], xp)


@dataclass(frozen=True)
class _Accuracy:
    """The weighted sums of the samples of each shard whose predicted class is right."""

    function: Callable[..., Any]
    n_shards: int

    def __call__(
        self, loss: Any, logits: Array, targets: Array, weights: Array, *, xp: Namespace
    ) -> Array:
        """Compute the sums, (shards,)."""
        shards = _shards(self.n_shards, logits, targets, weights)
        parts = [self.function(loss, *shard, xp=xp) * xp.sum(shard[-1]) for shard in shards]
        return xp.stack(parts)
