"""Layer and batch normalization."""

from __future__ import annotations

from typing import ClassVar

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.nn.blocks._base import Applied, Block, Context, Make
from mlp_xp.nn.layers import LayerPullback, Norm, Signs, apply_norm


class _Normalization(Block):
    """The base class for normalizations, with initial scales of 1 and shifts of 0."""

    width: int

    def init(self, uniform: Make, constant: Make) -> Norm:
        """Return scales of 1 and shifts of 0."""
        return Norm(constant(1.0, (self.width,)), constant(0.0, (self.width,)))


@dataclass(frozen=True)
class LayerNorm(_Normalization):
    """Layer normalization of each sample by its mean and variance."""

    width: int
    label: ClassVar[str] = "layer normalization"

    def __call__(self, params: Norm, x: Array, context: Context) -> Applied:
        """Apply `mlp_xp.nn.layers.layer_norm`."""
        own = context.xp.astype(x, params.scale.dtype, copy=False)
        y, pullback = context.kernels.layer_norm(params, own, xp=context.xp)
        return *_as_given(x, y, pullback, xp=context.xp), ()


@dataclass(frozen=True)
class BatchNorm(_Normalization):
    """Batch normalization; ``number`` is the index of its running statistics."""

    width: int
    number: int
    label: ClassVar[str] = "batch normalization"

    @property
    def batch_stats_widths(self) -> tuple[int, ...]:  # type: ignore[override]
        """The number of normalized features."""
        return (self.width,)

    def signs(self, inputs: Array, outputs: Array) -> list[Signs | None]:
        return [Signs.along(outputs), None]

    def __call__(self, params: Norm, x: Array, context: Context) -> Applied:
        """Apply `mlp_xp.nn.layers.batch_norm`."""
        xp = context.xp
        own = xp.astype(x, params.scale.dtype, copy=False)
        if not context.is_training:
            stats = context.batch_stats[self.number]
            return *_as_given(x, *apply_norm(params, stats, own, xp=xp), xp=xp), ()
        y, pullback, batch_stats = context.kernels.batch_norm(params, own, context.weights, xp=xp)
        return *_as_given(x, y, pullback, xp=xp), (batch_stats,)


def _as_given(
    x: Array, y: Array, pullback: LayerPullback, *, xp: Namespace
) -> tuple[Array, LayerPullback]:
    """Cast the output, and the pullback's ``dx``, to the dtype of the input ``x``."""
    own = y.dtype
    if own == x.dtype:
        return y, pullback

    def pull(dy: Array, *, need_dx: bool) -> tuple[Array | None, Tree]:
        dx, grads = pullback(xp.astype(dy, own), need_dx=need_dx)
        return None if dx is None else xp.astype(dx, x.dtype), grads

    return xp.astype(y, x.dtype), pull
