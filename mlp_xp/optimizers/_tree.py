"""Operations on trees of parameters: update, clipping and averaging."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.settings import is_array, numbers, with_numbers
from mlp_xp._utils.tree import leaves, map_leaves, rebuild
from mlp_xp.optimizers._base import Coefs, Kind, Optimizer


class Updated(NamedTuple):
    """The result of `update_tree`."""

    params: Tree
    opt_state: Any
    penalty: Array | float


def init_opt_state(optimizer: Optimizer, params: Tree, *, xp: Namespace) -> Any:
    """Return the rule's initial state: trees of zeros in the shape of the parameters."""
    kind = optimizer.state_type
    return kind(*(map_leaves(xp.zeros_like, params) for _ in kind._fields))


def kinds(params: Tree, n_leading: int = 0) -> list[Kind]:
    """Return the kind of each leaf; the last matrix in the tree belongs to the output layer.

    The first ``n_leading`` axes are for the models of a stack. A block-diagonal layer's
    three-dimensional array counts as a matrix. A NamedTuple's attribute ``kinds``, if any, lists
    the kinds of its arrays.
    """
    found: list[Kind] = []
    _append_kinds((params,), (), n_leading, found)
    matrices = [i for i, kind in enumerate(found) if kind == "matrix"]
    if matrices:
        found[matrices[-1]] = "head"
    return found


def _append_kinds(
    branches: Tree, given: tuple[Kind, ...], n_leading: int, found: list[Kind]
) -> None:
    for i, branch in enumerate(branches):
        if isinstance(branch, tuple):
            _append_kinds(branch, getattr(branch, "kinds", ()), n_leading, found)
        else:
            found.append(
                given[i] if given else "matrix" if branch.ndim > n_leading + 1 else "vector"
            )


def update_tree(
    optimizer: Optimizer,
    params: Tree,
    grads: Tree,
    opt_state: Any,
    coefs: Coefs,
    l2: Array | None = None,
    *,
    n_leading: int = 0,
    xp: Namespace,
) -> Updated:
    r"""Update all parameters, with an L2 penalty :math:`\tfrac12 \lambda \sum W^2` on matrices.

    Parameters, gradients and state are donated. The returned penalty is for the old parameters.
    Low-precision gradients are converted to the parameters' dtype, unless the rule accepts them. In
    a stack of models, the first ``n_leading`` axes count models. The rule's numbers, ``coefs`` and
    ``l2`` may then be arrays with these axes, and each model has its own penalty.
    """
    penalty: Array | float = 0.0
    shaped: dict[int, tuple[Optimizer, Coefs]] = {}  # Keys: the number of axes.
    new_params = []
    new_states = []
    trees = (params, grads, *opt_state)
    for kind, p, g, *old in zip(kinds(params, n_leading), *map(leaves, trees), strict=True):
        if n_leading and p.ndim not in shaped:
            shaped[p.ndim] = _shaped(optimizer, coefs, p.ndim, xp=xp)
        rule, own = shaped.get(p.ndim, (optimizer, coefs))
        new, kept, own_penalty = update_array(
            rule, kind, p, g, tuple(old), own, l2, n_leading=n_leading, xp=xp
        )
        if own_penalty is not None:
            penalty = penalty + own_penalty
        new_params.append(new)
        new_states.append(kept)
    by_field = zip(*new_states, strict=True)
    return Updated(
        rebuild(params, new_params),
        optimizer.state_type(*(rebuild(params, values) for values in by_field)),
        penalty,
    )


def penalized(
    kind: Kind, p: Array, g: Array, l2: Array | None, *, n_leading: int = 0, xp: Namespace
) -> tuple[Array, Array | None]:
    """Return the penalized gradient, and the penalty or None; see `update_tree`."""
    if l2 is None or kind == "vector":
        return g, None
    flat = xp.reshape(p, (*p.shape[:n_leading], -1))
    penalty = 0.5 * l2 * xp.vecdot(flat, flat)
    l2 = for_axes(l2, p.ndim, xp=xp) if n_leading else l2
    if g.dtype != p.dtype:
        return xp.astype(g + l2 * p, g.dtype), penalty
    g += l2 * p
    return g, penalty


def update_array(
    optimizer: Optimizer,
    kind: Kind,
    p: Array,
    g: Array,
    state: tuple[Array, ...],
    coefs: Coefs,
    l2: Array | None,
    *,
    n_leading: int = 0,
    xp: Namespace,
) -> tuple[Array, Any, Array | None]:
    """Update one array as in `update_tree`; return the array, the state, and the penalty.

    Per-model values must broadcast against the array.
    """
    g, penalty = penalized(kind, p, g, l2, n_leading=n_leading, xp=xp)
    if g.dtype != p.dtype and kind not in getattr(optimizer, "low_precision", ()):
        g = xp.astype(g, p.dtype)
    new, kept = optimizer.update(p, g, optimizer.state_type(*state), coefs, kind=kind, xp=xp)
    return new, kept, penalty


def clip(grads: Tree, max_norm: float, *, n_leading: int = 0, xp: Namespace) -> tuple[Tree, Array]:
    r"""Scale all gradients by one factor so that their joint L2 norm is at most ``max_norm``.

    :math:`g \leftarrow g \min(1, c / \lVert g \rVert)`, with a single norm over all leaves; in a
    stack, each model has its own norm. Gradients are donated. Sums are at least in float32. If a
    gradient contains NaN, all gradients become NaN. Infinity becomes NaN. Also return the norm
    before clipping.

    References
    ----------
    Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks" (2013),
    arXiv:1211.5063, algorithm 1.

    Examples
    --------
    >>> import array_api_compat.numpy as xp
    >>> from mlp_xp.optimizers import clip
    >>> clip((xp.asarray([[3.0]]), xp.asarray([4.0])), 1.0, xp=xp)
    ((array([[0.6]]), array([0.8])), np.float64(5.0))
    """
    if not 0.0 < max_norm < math.inf:
        raise ValueError(f"`max_norm` must be above 0 and finite, got {max_norm!r}.")
    dtype = xp.result_type(xp.float32, *(g.dtype for g in leaves(grads)))
    flat = [
        xp.astype(xp.reshape(g, (*g.shape[:n_leading], -1)), dtype, copy=False)
        for g in leaves(grads)
    ]
    norm = xp.sqrt(sum(xp.vecdot(g, g) for g in flat))
    # The maximum is never 0, and propagates NaN, unlike a comparison.
    factor = max_norm / xp.maximum(norm, xp.full_like(norm, max_norm))

    def scaled(g: Array) -> Array:
        own = for_axes(factor, g.ndim, xp=xp) if n_leading else factor
        if g.dtype != dtype:
            return xp.astype(g * own, g.dtype)
        g *= own
        return g

    return map_leaves(scaled, grads), norm


def averaged(average: Tree, params: Tree, rate: Array, *, xp: Namespace) -> Tree:
    r"""Update an exponential moving average of the parameters, :math:`a \leftarrow a + r (p - a)`.

    The average is donated. The rate, 1 minus the decay, is a scalar, or an array with one element
    per model.

    References
    ----------
    Polyak, Juditsky, "Acceleration of stochastic approximation by averaging" (1992), for the idea;
    their weights are equal.
    """

    def moved(pair: tuple[Array, Array]) -> Array:
        a, p = pair
        change = p - a
        change *= for_axes(rate, a.ndim, xp=xp)
        a += change
        return a

    return rebuild(average, map(moved, zip(leaves(average), leaves(params), strict=True)))


def _shaped(
    optimizer: Optimizer, coefs: Coefs, ndim: int, *, xp: Namespace
) -> tuple[Optimizer, Coefs]:
    """Reshape a rule's per-model settings and coefficients for arrays with ``ndim`` axes."""
    own = (for_axes(number, ndim, xp=xp) for number in numbers(optimizer))
    return with_numbers(optimizer, own), tuple(for_axes(coef, ndim, xp=xp) for coef in coefs)


def for_axes(of_models: Any, ndim: int, *, xp: Namespace) -> Any:
    """Reshape per-model values to broadcast against arrays with ``ndim`` axes."""
    if not is_array(of_models):
        return of_models
    return xp.reshape(of_models, (*of_models.shape, *[1] * (ndim - of_models.ndim)))
