"""What the fused updates share: which rules they cover, and the walk over the tree.

A library brings one loop a rule, over flat arrays, which does the work of `Optimizer.update` and of
the L2 penalty in one pass over memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlp_xp import optimizers
from mlp_xp._typing import Array, Namespace, Tree
from mlp_xp.optimizers import SGD, Adam, AdamW, Optimizer, Updated
from mlp_xp.tree import leaves

__all__ = ["make_update"]

# loop(arrays, scalars, with_total): arrays are p, g and the slots; the last scalar is the factor of
# the penalty. Writes p and the slots; gives the sum of the squares of the old p, if asked for.
Loop = Callable[[tuple[Any, ...], tuple[Any, ...], bool], Any]


def make_update(
    loops: Callable[[], dict[str, Loop]], accepts: Callable[[Any], bool]
) -> Callable[..., Updated]:
    """Make a kernel that does what `mlp_xp.optimizers.update_tree` does, with fused loops.

    Parameters
    ----------
    loops : callable
        Gives the loops ``"sgd"`` and ``"adam"``, as far as there are any; called at each update.
    accepts : callable
        Tells whether the loops take an array, by its dtype and layout.
    """

    def update_tree(
        optimizer: Optimizer,
        params: Tree,
        grads: Tree,
        slots: tuple[Tree, ...],
        coefs: tuple[Array, ...],
        l2: Array | None = None,
        *,
        xp: Namespace,
    ) -> Updated:
        # Without slots (no momentum) there is nothing to fuse.
        known = type(optimizer) in (SGD, Adam, AdamW) and bool(slots)
        everything = (params, grads, slots)
        loop = loops().get("sgd" if type(optimizer) is SGD else "adam") if known else None
        if loop is None or not all(map(accepts, leaves(everything))):
            return optimizers.update_tree(optimizer, params, grads, slots, coefs, l2, xp=xp)
        penalty: Any = 0.0
        for arrays in zip(leaves(params), leaves(grads), *map(leaves, slots), strict=True):
            number = arrays[0].dtype.type
            is_matrix = arrays[0].ndim > 1
            penalised = l2 is not None and is_matrix
            factor = l2 if penalised else number(0)
            scalars = (*_scalars(optimizer, coefs, is_matrix, number), factor)
            total = loop(arrays, scalars, penalised)
            if penalised:
                penalty = penalty + number(0.5) * factor * total
        return Updated(params, slots, penalty)

    return update_tree


def _scalars(
    optimizer: Any, coefs: tuple[Array, ...], is_matrix: bool, number: Callable[[float], Any]
) -> tuple[Any, ...]:
    """Give the numbers of a loop, in the dtype of the arrays: a float64 would widen them all."""
    if isinstance(optimizer, SGD):
        return coefs[0], number(optimizer.momentum), optimizer.nesterov
    shrinks = isinstance(optimizer, AdamW) and is_matrix
    return (
        coefs[0],
        coefs[1] if shrinks else number(1),
        number(optimizer.beta_1),
        number(1 - optimizer.beta_1),
        number(optimizer.beta_2),
        number(1 - optimizer.beta_2),
        number(optimizer.epsilon),
    )
