"""A batch's average loss with its gradient, and its accuracy, each in one or two launches.

A small batch is summed by one block of threads. For a larger batch, a second launch adds up the
sums of several blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlp_xp._utils.array_types import Array, Namespace
from mlp_xp.backends import kernels
from mlp_xp.backends._cupy.kernels.fusion import Fused, fused
from mlp_xp.nn import losses
from mlp_xp.nn.losses import Loss


def loss(
    loss: Loss, logits: Any, targets: Any, weights: Any = None, *, xp: Namespace
) -> tuple[Array, Callable[[], Array]]:
    """Compute `mlp_xp.nn.losses.mean_loss`, together with its gradient."""
    arguments = logits, targets, weights

    def compute(*arguments: Any, xp: Any) -> Any:
        value, pullback = losses.mean_loss(loss, *arguments, xp=xp)
        return value, pullback()

    own_name = type(loss).__name__.lower()
    name = f"mlp_xp_{own_name if own_name.isascii() else 'loss'}"
    compiled = fused(loss, "loss", arguments, lambda: Fused(name, compute, arguments))
    if compiled is None:
        return losses.mean_loss(loss, *arguments, xp=xp)
    value, dlogits = compiled(*arguments)
    return value, lambda: dlogits


def mean_accuracy(
    loss: Loss, logits: Any, targets: Any, weights: Any = None, *, xp: Namespace
) -> Array:
    """Compute `mlp_xp.nn.losses.mean_accuracy`."""
    arguments = logits, targets, weights

    def compute(*arguments: Any, xp: Any) -> Any:
        return losses.mean_accuracy(loss, *arguments, xp=xp)

    def make() -> Fused:
        return Fused("mlp_xp_accuracy", compute, arguments)

    compiled = fused(loss, "accuracy", arguments, make)
    if compiled is None:
        return losses.mean_accuracy(loss, *arguments, xp=xp)
    found: Array = compiled(*arguments)
    return found


def accumulate(total: Any, share: Any, *terms: Any) -> Array:
    """Compute `mlp_xp.backends.kernels.accumulate`."""
    arguments = total, share, *terms
    numbers = tuple(x if isinstance(x, float) else None for x in terms)
    arrays = total, share, *(None if isinstance(x, float) else x for x in terms)

    def compute(total: Any, share: Any, *terms: Any, xp: Any) -> Any:
        own = (x if number is None else number for x, number in zip(terms, numbers, strict=True))
        return kernels.accumulate(total, share, *own)

    def make() -> Fused:
        return Fused("mlp_xp_accumulate", compute, arrays)

    compiled = fused(None, ("accumulate", numbers), arrays, make)
    found: Array = kernels.accumulate(*arguments) if compiled is None else compiled(*arrays)
    return found
