"""Update parameters in one pass over memory, or small arrays in one NumPy call per operation."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mlp_xp import optimizers
from mlp_xp._utils.array_types import Namespace, Tree
from mlp_xp._utils.tree import leaves
from mlp_xp.backends._numpy.kernels.writing import call, constants, is_plain, or_plain, run
from mlp_xp.backends._numpy.native.thread_pool import has_pool
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
# The block size for sums of squares: OpenBLAS uses several threads for more than 10,000 numbers.
_UNSHARED = 1 << 13


@or_plain
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
    """Compute `mlp_xp.optimizers.update_tree` in one pass over memory."""
    rows = list(zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True))
    # Without optimizer state (no momentum), there is only one operation, so there is nothing to
    # fuse.
    is_known = (
        type(optimizer) in (SGD, Adam, AdamW)
        and bool(opt_state)
        and not n_leading
        and has_pool()
        and is_plain(*(array for row in rows for array in row))
        and all(array.shape == row[0].shape for row in rows for array in row)
        # The kernel stores addresses, but an argument's address may change between calls.
        and not any(getattr(array, "find_view", None) for row in rows for array in row)
        and all(array.flags.writeable for p, _, *own in rows for array in (p, *own))
        and all(
            (c.dtype, c.size) == (rows[0][0].dtype, 1)
            for c in (*coefs, l2)
            if isinstance(c, Traced)
        )
    )
    if not is_known:
        penalty: Any = None
        if type(optimizer) in (SGD, Adam, AdamW) and not n_leading:
            given = optimizer, rows, optimizers.kinds(params), coefs, l2
            penalty = _update_as_one(*given, xp=xp)
            if penalty is None:
                penalty = _update_in_pieces(*given, xp=xp)
        if penalty is None:
            trees = params, grads, opt_state
            return optimizers.update_tree(optimizer, *trees, coefs, l2, n_leading=n_leading, xp=xp)
        return Updated(params, opt_state, penalty)
    from mlp_xp.backends._numpy.native.jobs import UPDATED_ARRAY, Update, address
    from mlp_xp.backends._numpy.native.tuning import LEAST_NUMBERS

    like = rows[0][0]
    # Convert numbers to arrays, because a NumPy scalar has no memory address.
    rate, *shrink = (c if isinstance(c, Traced) else np.asarray(c, like.dtype) for c in coefs)
    factor: Any = 0
    penalty = 0.0
    if l2 is not None:
        factor = l2 if isinstance(l2, Traced) else np.asarray(l2, like.dtype)
        penalty = np.empty_like(like, shape=())
    arrays = np.zeros(len(rows), UPDATED_ARRAY)
    for array, kind, row in zip(arrays, optimizers.kinds(params), rows, strict=True):
        array["size"], array["is_matrix"] = row[0].size, kind != "vector"
        for name, one in zip(("param", "grad", "state_1", "state_2"), row, strict=False):
            array[name] = address(one)
    rule, numbers = _rule(optimizer)
    job = Update(
        is_double=like.dtype == np.float64,
        n_arrays=len(rows),
        arrays=arrays,
        rule=rule,
        constants=constants(numbers),
        rate=rate,
        l2=factor,
        penalty=penalty if l2 is not None else 0,
        shrink=shrink[0] if shrink else 0,
    )
    size = sum(row[0].size for row in rows)
    run(job, size >= LEAST_NUMBERS, *(array for row in rows for array in row))
    return Updated(params, opt_state, penalty if l2 is None else penalty[()])


def _update_as_one(
    optimizer: Optimizer, rows: Rows, of_kinds: Kinds, coefs: Coefs, l2: Array | None, *, xp: Any
) -> Any:
    """Update small arrays that are adjacent in memory as one array, to save NumPy calls.

    Return the penalty, or None if the arrays are not suitable. A NumPy call's overhead costs about
    as much as computing a few thousand numbers.
    """
    params, grads, *states = map(list, zip(*rows, strict=True))
    is_known = (
        not has_pool()
        and type(optimizer) is not AdamW
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
    """Update large arrays in pieces that fit in the caches, 2 to 3 times as fast as in one piece.

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


def _rule(optimizer: Optimizer) -> tuple[int, tuple[float, ...]]:
    """Return an update rule's number in the machine code, and the rule's constants."""
    from mlp_xp.backends._numpy.native.jobs import ADAM, MOMENTUM

    if isinstance(optimizer, SGD):
        return MOMENTUM, (optimizer.momentum, float(optimizer.nesterov))
    assert isinstance(optimizer, Adam)
    beta_1, beta_2 = optimizer.beta_1, optimizer.beta_2
    return ADAM, (beta_1, 1 - beta_1, beta_2, 1 - beta_2, optimizer.epsilon)
