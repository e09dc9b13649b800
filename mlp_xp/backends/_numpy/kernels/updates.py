"""Update large parameters in cache-sized pieces, and small parameters with fewer NumPy calls."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mlp_xp import optimizers
from mlp_xp._utils.array_types import Namespace, Tree
from mlp_xp._utils.tree import leaves
from mlp_xp.backends._numpy.kernels.writing import call
from mlp_xp.backends._numpy.runtime.thread_pool import has_pool
from mlp_xp.backends._numpy.tracing.traced import Traced
from mlp_xp.optimizers import SGD, Adam, AdamW, Optimizer, Updated, update_array

Array: TypeAlias = Any  # A NumPy array or a traced array.
# `Rows` are tuples of a parameter, its gradient and its state. `Kinds` are the parameters' kinds,
# and `Coefs` the optimizer's coefficients.
Rows: TypeAlias = list[tuple[Any, ...]]
Kinds: TypeAlias = list[Any]
Coefs: TypeAlias = tuple[Array, ...]

# The maximum number of elements per array, so that all arrays of an update fit in the L2 cache.
_PIECE = 1 << 15
# The block size for sums of squares: above 10,000 elements, OpenBLAS uses several threads.
_UNSHARED = 1 << 13


def update_tree(
    optimizer: Optimizer,
    params: Tree,
    grads: Tree,
    opt_state: tuple[Tree, ...],
    coefs: tuple[Array, ...],
    l2: Array | None = None,
    *,
    n_leading: int = 0,
    xp: Namespace,
) -> Updated:
    """Compute `mlp_xp.optimizers.update_tree`; without machine code, in cache-sized pieces."""
    rows = list(zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True))
    is_known = (
        type(optimizer) in (SGD, Adam, AdamW)
        # In machine code, the formulas' loops are merged instead.
        and not (has_pool() and isinstance(rows[0][0], Traced))
        and not n_leading
    )
    penalty: Any = None
    if is_known:
        given = optimizer, rows, optimizers.kinds(params), coefs, l2
        penalty = _update_as_one(*given, xp=xp)
        if penalty is None:
            penalty = _update_in_pieces(*given, xp=xp)
    if penalty is None:
        trees = params, grads, opt_state
        return optimizers.update_tree(optimizer, *trees, coefs, l2, n_leading=n_leading, xp=xp)
    return Updated(params, opt_state, penalty)


def _update_as_one(
    optimizer: Optimizer, rows: Rows, of_kinds: Kinds, coefs: Coefs, l2: Array | None, *, xp: Any
) -> Any:
    """Update small arrays that are adjacent in memory as one array, to save NumPy calls.

    Return the penalty, or None if the arrays are not suitable. The overhead of a NumPy call equals
    the time to compute a few thousand elements.
    """
    params, grads, *states = map(list, zip(*rows, strict=True))
    is_known = (
        type(optimizer) is not AdamW
        and isinstance(params[0], Traced)
        and len(params) > 1
        and sum(p.size for p in params) <= _PIECE
        and all(isinstance(g, Traced) and g.dtype == params[0].dtype for g in grads)
    )
    if not is_known:
        return None
    program = params[0].program
    p, *joined = map(program.joined, (params, *states))
    if any(array is None for array in (p, *joined)):
        return None
    penalty: Any = 0.0
    for i, kind in enumerate(of_kinds):
        grads[i], own = optimizers.penalized(kind, params[i], grads[i], l2, xp=xp)
        penalty = penalty if own is None else penalty + own
    g: Any = np.empty_like(p)
    program.call(np.concatenate, [np.reshape(array, (-1,)) for array in grads], 0, g)
    optimizer.update(p, g, optimizer.state_type(*joined), coefs, xp=xp)
    return penalty


def _update_in_pieces(
    optimizer: Optimizer, rows: Rows, of_kinds: Kinds, coefs: Coefs, l2: Array | None, *, xp: Any
) -> Any:
    """Update large arrays in cache-sized pieces, 2 to 3 times as fast as in one piece.

    Return the penalty, or None if all arrays fit in the caches.
    """
    if all(row[0].size <= _PIECE for row in rows):
        return None
    penalty: Any = np.empty_like(rows[0][0], shape=())

    def update(rows: Rows, coefs: Coefs, l2: Array | None, out: Array) -> None:
        out[...] = 0
        for kind, arrays in zip(of_kinds, rows, strict=True):
            row: Any = [np.atleast_1d(array) for array in arrays]
            n_lines = max(1, _PIECE * row[0].shape[0] // max(1, row[0].size))
            for start in range(0, row[0].shape[0], n_lines):
                p, g, *own = (array[start : start + n_lines] for array in row)
                if l2 is not None and kind != "vector":
                    g += l2 * p
                    out += 0.5 * l2 * _sum_of_squares(p)
                update_array(optimizer, kind, p, g, tuple(own), coefs, None, xp=xp)

    call(update, rows, coefs, l2, penalty)
    return penalty


def _sum_of_squares(x: np.ndarray) -> Any:
    """Return the sum of squares, computed in one thread to avoid waiting for BLAS threads."""
    flat = x.reshape(-1)
    n = flat.size // _UNSHARED * _UNSHARED
    rows, remainder = flat[:n].reshape(-1, _UNSHARED), flat[n:]
    return np.vecdot(rows, rows).sum() + np.vecdot(remainder, remainder)
