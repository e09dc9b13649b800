"""Dynamic loss scaling, which prevents small gradients from becoming 0 in float16.

The smallest positive float16 number is 6e-8. The gradient of the loss is therefore multiplied by a
large factor before the backward pass, and the parameters' gradients are divided by the same factor.
A step whose gradients overflow is skipped and halves the factor; after 2,000 consecutive finite
steps, the factor is doubled. All values are on the device. If there is no `LossScale`, the
functions return their arguments.

References
----------
Micikevicius et al., "Mixed precision training" (2018), arXiv:1710.03740, section 3.2.
"""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.optimizers import for_axes

# The factors are powers of 2, which cause no rounding errors. At a factor of 1, no step is skipped,
# since loss scaling cannot have caused the overflow.
_FIRST, _LEAST, _MOST = 2.0**16, 1.0, 2.0**24
_GOOD_STEPS = 2_000


class LossScale(NamedTuple):
    """The factor, and the number of finite steps since its last change.

    Both are 0-d, or have one element per model in a stack.
    """

    factor: Array
    good_steps: Array


def init_loss_scale(like: Array, *, xp: Namespace) -> LossScale:
    """Return the loss scale before the first step, in the shape of ``like``."""
    return LossScale(xp.full_like(like, _FIRST), xp.zeros_like(like))


def copy_state(tree: Tree, scale: LossScale | tuple[()], *, xp: Namespace) -> Tree:
    """Copy the state before an update overwrites it, if loss scaling may undo the update."""
    if not scale:
        return tree
    return map_leaves(lambda leaf: xp.asarray(leaf, copy=True), tree)


def scale_loss_gradient(dlogits: Array, scale: LossScale | tuple[()], *, xp: Namespace) -> Array:
    """Multiply the gradient of the loss by the factor."""
    return dlogits * for_axes(scale.factor, dlogits.ndim, xp=xp) if scale else dlogits


def unscale_gradients(
    grads: Tree, scale: LossScale | tuple[()], *, xp: Namespace
) -> tuple[Tree, Array | tuple[()]]:
    """Divide the gradients by the factor; also return whether all of a model's are finite.

    The results have the factor's dtype, since they would again underflow in float16.
    """
    if not scale:
        return grads, ()
    inverse, dtype, n_leading = 1.0 / scale.factor, scale.factor.dtype, scale.factor.ndim
    grads = map_leaves(lambda g: xp.astype(g, dtype) * for_axes(inverse, g.ndim, xp=xp), grads)
    # A sum is finite only if all its terms are.
    sums = [xp.sum(g, axis=tuple(range(n_leading, g.ndim))) for g in leaves(grads)]
    return grads, xp.isfinite(sum(sums[1:], start=sums[0]))


def accept_or_revert(
    new: Tree,
    old: Tree,
    scale: LossScale | tuple[()],
    is_finite: Array | tuple[()],
    *,
    xp: Namespace,
) -> tuple[Tree, LossScale | tuple[()]]:
    """Return the new tree, or the old tree if the step is skipped, and the next loss scale.

    ``old`` is a copy from before the update; `unscale_gradients` returns ``is_finite``.
    """
    if not scale or isinstance(is_finite, tuple):
        return new, scale
    factor, good_steps = scale
    is_kept = xp.logical_or(is_finite, xp.logical_not(factor > _LEAST))
    n_good = good_steps + 1.0
    is_late = n_good > _GOOD_STEPS - 1
    larger = xp.where(is_late, xp.minimum(2.0 * factor, xp.full_like(factor, _MOST)), factor)
    smaller = xp.maximum(0.5 * factor, xp.full_like(factor, _LEAST))
    none = xp.zeros_like(n_good)
    following = LossScale(
        xp.where(is_finite, larger, smaller),
        xp.where(xp.logical_and(is_finite, xp.logical_not(is_late)), n_good, none),
    )
    chosen = (
        xp.where(for_axes(is_kept, mine.ndim, xp=xp), mine, theirs)
        for mine, theirs in zip(leaves(new), leaves(old), strict=True)
    )
    return rebuild(new, chosen), following
