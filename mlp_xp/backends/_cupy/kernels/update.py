"""Kernels that update all parameters or their moving average in one launch, or clip the gradient.

The compiler prints the formulas of `mlp_xp.optimizers` for one element of each array.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import cupy
import numpy as np

from mlp_xp import optimizers
from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.settings import is_array, numbers, with_numbers
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends._cupy.kernels.fusion import Plan, add_up, is_of_formula, nodes_of
from mlp_xp.backends._cupy.kernels.loops import (
    Formula,
    Loop,
    array_node,
    scalar_node,
    split_sum,
)
from mlp_xp.backends._cupy.kernels.multi_tensor import parts_of
from mlp_xp.backends._cupy.kernels.orthogonal import can_orthogonalize, orthogonalize
from mlp_xp.backends._cupy.kernels.rendering import is_plain
from mlp_xp.compiler import Node, in_order
from mlp_xp.compiler import namespace as traced
from mlp_xp.compiler.array import TracedArray
from mlp_xp.compiler.formula import evaluate
from mlp_xp.optimizers import Optimizer, Updated, kinds, penalized, rule_of, update_array

# Every block adds up the sums of all blocks, unless there are more.
_MOST_PARTS = 4096


# --- update --------------------------------------------------------------------------------------


class _Rule(NamedTuple):
    """The formula that updates one kind of parameter, and the node for its penalty."""

    formula: Formula
    penalty: Node | None


class _Numbers(NamedTuple):
    """The numbers that a rule needs on the device: coefficients, and settings that differ by model.

    Each is identified by its position among all numbers of the update, since a rule in `ByKind` may
    have several learning rates.
    """

    coefs: tuple[int, ...]
    settings: tuple[int, ...]
    has_penalty: bool


@cache
def _trace_rule(
    rule: Optimizer, kind: Any, dtypes: tuple[str, ...], given: _Numbers
) -> _Rule | None:
    """Return the formula of a rule, or None if it is not elementwise.

    The arrays are the parameter, the gradient and the rule's state. An orthogonal update overwrites
    the gradient with its direction.
    """
    dtype, xp = dtypes[0], traced.Namespace(dtypes[0])
    arrays = [array_node(k, d) for k, d in enumerate(dtypes)]
    coefs = [scalar_node(f"number {k}", dtype) for k in given.coefs]
    settings = [scalar_node(f"number {k}", dtype, is_setting=True) for k in given.settings]
    l2 = [scalar_node("l2", dtype)] if given.has_penalty else []
    try:
        if settings:
            rule = with_numbers(rule, map(TracedArray, settings))
        new, penalty = _outputs(rule, kind, arrays, coefs, l2, xp=xp)
        total = split_sum([*new, *penalty])
        if total is not None and any(total in in_order([node]) for node in new):
            return None
    except Exception as error:
        if not is_of_formula(error):
            raise
        return None
    changed = [k for k, node in enumerate(new) if node is not arrays[k]]
    summand = None if total is None else total.operands[0]
    results = tuple(new[k] for k in changed)
    formula = Formula(results, tuple(changed), summand, (*coefs, *settings, *l2))
    return _Rule(formula, penalty[0] if penalty else None)


def _outputs(
    rule: Any, kind: Any, arrays: list[Node], coefs: list[Node], l2: list[Node], *, xp: Any
) -> tuple[list[Node], list[Node]]:
    """Return the new values of the arrays, and the penalty if there is one."""
    p, g, *states = map(TracedArray, arrays)
    numbers, factor = tuple(map(TracedArray, coefs)), TracedArray(l2[0]) if l2 else None
    if not can_orthogonalize(rule):
        new, kept, penalty = update_array(rule, kind, p, g, tuple(states), numbers, factor, xp=xp)
        return [*nodes_of(new), arrays[1], *nodes_of(kept)], nodes_of(penalty)
    penalized_g, penalty = penalized(kind, p, g, factor, xp=xp)
    new = rule.direct(p, penalized_g, rule.state_type(*states), numbers, xp=xp)
    return nodes_of(new), nodes_of(penalty)


@cache
def _update_loop(dtypes: tuple[str, ...], formulas: tuple[Formula, ...]) -> Loop:
    return Loop("mlp_xp_update", dtypes, formulas)


@cache
def _penalty_plan(
    penalty: Node, parts: tuple[int, ...], factor: tuple[int, ...], device: int
) -> Plan:
    """Return the plan that computes the penalty from the sums of the thread blocks."""
    total = split_sum([penalty])
    assert total is not None
    inputs = [
        Node("input", (), (name,), shape, total.dtype)
        for name, shape in (("parts", parts), ("l2", factor))
    ]
    xp: Any = traced.Namespace(total.dtype)
    order = in_order([penalty], [total])
    values: dict[Node, Any] = {x: TracedArray(inputs[1]) for x in order if x.operation == "input"}
    values[total] = xp.sum(TracedArray(inputs[0]), axis=-1)
    evaluate(order, values, xp=xp)
    return Plan("mlp_xp_penalty", nodes_of(values[penalty]), inputs)


class _Leaf(NamedTuple):
    """A parameter, its gradient and state, its rule with coefficients, and their traced formula.

    ``values`` are the numbers in the formula.
    """

    arrays: tuple[Any, ...]
    rule: Any
    coefs: tuple[Any, ...]
    traced: _Rule | None
    values: dict[Node, Any]


def update_tree(
    optimizer: Optimizer,
    params: Tree,
    grads: Tree,
    opt_state: Any,
    coefs: tuple[Any, ...],
    l2: Any = None,
    *,
    n_leading: int = 0,
    xp: Namespace,
) -> Updated:
    """Compute `mlp_xp.optimizers.update_tree` in one launch, or two with an L2 penalty.

    Muon needs another launch, plus two for each hidden matrix that is not wide. Arrays whose rule
    is not elementwise are updated one by one.
    """
    members = list(zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True))
    own_kinds = kinds(params, n_leading)
    found = _find_rules(optimizer, own_kinds, members, coefs, l2, n_leading)
    if not found or (n_leading and any(leaf.traced is None for leaf in found)):
        return optimizers.update_tree(
            optimizer, params, grads, opt_state, coefs, l2, n_leading=n_leading, xp=xp
        )
    models = members[0][0].shape[:n_leading]
    penalty = _update_leaves([leaf for leaf in found if leaf.traced is not None], l2, models)
    orthogonal = [leaf for leaf in found if leaf.traced and can_orthogonalize(leaf.rule)]
    if orthogonal:
        rule, own = orthogonal[0].rule, orthogonal[0].coefs
        moved = [leaf.arrays[:2] for leaf in orthogonal]
        orthogonalize(rule, moved, own[0], math.prod(models), xp=xp)
    updated: list[Any] = []
    for leaf, kind, (p, g, *states) in zip(found, own_kinds, members, strict=True):
        if leaf.traced is not None:
            updated.append((p, states))
            continue
        new, kept, more = update_array(optimizer, kind, p, g, tuple(states), coefs, l2, xp=xp)
        penalty = penalty if more is None else penalty + more
        updated.append((new, kept))
    by_field = zip(*(kept for _, kept in updated), strict=True)
    return Updated(
        rebuild(params, (p for p, _ in updated)),
        optimizer.state_type(*(rebuild(params, arrays) for arrays in by_field)),
        penalty,
    )


def _find_rules(
    optimizer: Optimizer,
    own_kinds: Sequence[Any],
    members: list[tuple[Any, ...]],
    coefs: tuple[Any, ...],
    l2: Any,
    n_leading: int,
) -> list[_Leaf]:
    """Return the leaves with their formulas, or nothing if the kernels do not support them."""
    own_settings = [x for x in numbers(optimizer) if is_array(x)]
    scalars = *coefs, *own_settings, *(() if l2 is None else (l2,))
    if n_leading > 1 or not _accepts(members, scalars, members[0][0].shape[:n_leading]):
        return []
    dtypes = tuple(array.dtype.name for array in members[0])
    known: dict[int, int] = {}  # Numbers are known by identity.

    def place(values: Sequence[Any]) -> tuple[int, ...]:
        return tuple(known.setdefault(id(x), len(known)) for x in values)

    found = []
    for kind, arrays in zip(own_kinds, members, strict=True):
        rule, own = rule_of(optimizer, kind, coefs)
        settings = numbers(rule) if own_settings else []
        key = with_numbers(rule, itertools.repeat(0.5)) if settings else rule
        n_arrays = 2 + len(rule.state_type._fields)
        given = _Numbers(place(own), place(settings), l2 is not None)
        traced_rule = _trace_rule(key, kind, dtypes[:n_arrays], given)
        names = () if traced_rule is None else traced_rule.formula.scalars
        values = dict(zip(names, [*own, *settings, l2], strict=False))
        found.append(_Leaf(arrays[:n_arrays], rule, own, traced_rule, values))
    return found


def _update_leaves(found: list[_Leaf], l2: Any, models: tuple[int, ...]) -> Any:
    """Update arrays by elementwise formulas; return the penalty."""
    n_models = math.prod(models)
    groups: dict[int, list[_Leaf]] = {}
    for leaf in found:
        groups.setdefault(len(leaf.arrays), []).append(leaf)
    launches = []
    for group in groups.values():
        formulas = tuple(dict.fromkeys(leaf.traced.formula for leaf in group if leaf.traced))
        loop = _update_loop(tuple(array.dtype.name for array in group[0].arrays), formulas)
        marks = [formulas.index(leaf.traced.formula) for leaf in group if leaf.traced]
        launches.append((loop, group, marks))
    counts = [parts_of([x.arrays for x in group], n_models) for _, group, _ in launches]
    n_parts = sum(n for (loop, *_), n in zip(launches, counts, strict=True) if loop.has_sum)
    parts = cupy.empty((*models, n_parts), found[0].arrays[0].dtype) if n_parts else None
    first = 0
    for (loop, group, marks), count in zip(launches, counts, strict=True):

        def sums(start: int, loop: Loop = loop, first: int = first) -> tuple[Any, ...]:
            if parts is None or not loop.has_sum:
                return ()
            return parts.reshape(-1)[first + start :], np.int64(n_parts)

        values = {node: x for leaf in group for node, x in leaf.values.items()}
        loop.run([leaf.arrays for leaf in group], marks, values, sums, n_models)
        first += count if loop.has_sum else 0
    penalties = [leaf.traced.penalty for leaf in found if leaf.traced and leaf.traced.penalty]
    if parts is None or not penalties:
        return 0.0
    device = cupy.cuda.runtime.getDevice()
    (penalty,) = _penalty_plan(penalties[0], parts.shape, l2.shape, device)([parts, l2])
    return penalty


def _accepts(
    members: list[tuple[Any, ...]], scalars: Sequence[Any], models: tuple[int, ...]
) -> bool:
    """Whether the kernels support the arrays: contiguous, each tree with one dtype."""
    dtype, gradient = (array.dtype for array in members[0][:2])
    return (
        is_plain(dtype)
        and all(_is_number(x, dtype, models) for x in scalars)
        and all(
            is_plain(dtype, p, *states)
            and is_plain(gradient, g)
            and all(array.shape == p.shape for array in (g, *states))
            and p.shape[: len(models)] == models
            for p, g, *states in members
        )
    )


def _is_number(x: Any, dtype: Any, models: tuple[int, ...]) -> bool:
    """Whether an array is a single number or has one number per model."""
    return isinstance(x, cupy.ndarray) and x.dtype == dtype and x.shape in ((), models)


# --- average and clipping ------------------------------------------------------------------------


@cache
def _average_loop(dtype: str) -> Loop:
    a, p, rate = array_node(0, dtype), array_node(1, dtype), scalar_node("rate", dtype)
    given = (TracedArray(a),), (TracedArray(p),), TracedArray(rate)
    xp: Any = traced.Namespace(dtype)
    (new,) = nodes_of(optimizers.averaged(*given, xp=xp))
    return Loop("mlp_xp_average", (dtype, dtype), [Formula((new,), (0,), None, (rate,))])


def averaged(average: Tree, params: Tree, rate: Array, *, xp: Namespace) -> Tree:
    """Compute `mlp_xp.optimizers.averaged` in one launch, also for several models at once."""
    members = list(zip(leaves(average), leaves(params), strict=True))
    dtype, models = members[0][0].dtype, rate.shape
    is_known = len(models) < 2 and all(
        is_plain(dtype, a, p) and a.shape == p.shape and a.shape[: len(models)] == models
        for a, p in members
    )
    if not is_known or not _is_number(rate, dtype, models):
        return optimizers.averaged(average, params, rate, xp=xp)
    values = {scalar_node("rate", dtype.name): rate}
    marks = [0] * len(members)
    _average_loop(dtype.name).run(members, marks, values, lambda first: (), math.prod(models))
    return average


@cache
def _clip_loops(dtype: str, max_norm: float) -> tuple[Loop, Loop]:
    """Return the loop that computes the norm and the loop that scales the gradient."""
    xp: Any = traced.Namespace(dtype)
    scaled, norm = nodes_of(optimizers.clip((TracedArray(array_node(0, dtype)),), max_norm, xp=xp))
    total = split_sum([scaled])
    assert total is not None
    add = Formula((), (), total.operands[0])
    scale = Formula((scaled,), (0,), total=total, norm=norm)
    return Loop("mlp_xp_norm", (dtype,), [add]), Loop("mlp_xp_clip", (dtype,), [scale])


def clip(grads: Tree, max_norm: float, *, n_leading: int = 0, xp: Namespace) -> tuple[Tree, Array]:
    """Compute `mlp_xp.optimizers.clip` in two launches: for the norm, and for the scaling.

    If there are many thread blocks, a third launch adds up their sums.
    """
    members = [(g,) for g in leaves(grads)]
    is_known = members and all(is_plain(members[0][0].dtype, g) for (g,) in members)
    if not is_known or n_leading > 1 or not 0.0 < max_norm < math.inf:
        return optimizers.clip(grads, max_norm, n_leading=n_leading, xp=xp)
    dtype, models = members[0][0].dtype, members[0][0].shape[:n_leading]
    n_models = math.prod(models)
    n_parts = max(parts_of(members, n_models), 1)
    parts, norm = cupy.empty((*models, n_parts), dtype), cupy.empty(models, dtype)
    marks, given = [0] * len(members), (parts, np.int64(n_parts), norm)
    add, scale = _clip_loops(dtype.name, max_norm)
    flat = parts.reshape(-1)
    add.run(members, marks, {}, lambda first: (flat[first:], np.int64(n_parts)), n_models)
    if n_parts > _MOST_PARTS:
        given = (add_up(parts).reshape(-1), np.int64(1), norm)
    scale.run(members, marks, {}, lambda first: given, n_models)
    return grads, norm
