"""Update all parameters in one launch, update their moving average, and clip the gradient.

The compiler prints the formulas of `mlp_xp.optimizers` for one element of each array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import cupy
import numpy as np

from mlp_xp import optimizers
from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends._cupy.kernels.fusion import Plan, add_up, is_of_formula, nodes_of
from mlp_xp.backends._cupy.kernels.multi_tensor import (
    PACKS,
    blocks_of,
    launch,
    multi_tensor,
    width_of,
)
from mlp_xp.backends._cupy.kernels.rendering import is_plain, raw_kernel
from mlp_xp.compiler import Node, in_order
from mlp_xp.compiler import namespace as traced
from mlp_xp.compiler.array import TracedArray
from mlp_xp.compiler.cuda_elements import Parameters, print_element
from mlp_xp.compiler.kernel import UnprintableError, replaced
from mlp_xp.compiler.print_cuda import OPTIONS
from mlp_xp.compiler.schedule import is_leaf, is_map
from mlp_xp.optimizers import Optimizer, Updated, kinds, rule_of, update_array

# The shape of a traced array. The code for one element depends on no shape.
_SHAPE = (2, 3)
# Every block adds up the sums of all blocks, unless there are more.
_MOST_PARTS = 4096
_LEAVE_SUM = """
  __shared__ T shared[THREADS];
  sum = reduce<Sum, THREADS, 1>(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;"""
# Every block adds up all partial sums.
_ADD_PARTS = """
  __shared__ T shared[THREADS];
  T sum = 0;
  for (long long i = threadIdx.x; i < n_parts; i += THREADS) sum += parts[i];
  const T all = reduce<Sum, THREADS, 1>(sum, shared);"""


class _Formula(NamedTuple):
    """The formula for one element of each array.

    Attributes
    ----------
    results : tuple of Node
    written : tuple of int
        The position of the array over which each result is written.
    summand : Node or None
        What is summed over all elements.
    scalars : tuple of Node
        The inputs that are single numbers.
    total : Node or None
        A node that is the sum of the summands of an earlier launch.
    norm : Node or None
        A single number that the first block stores.
    """

    results: tuple[Node, ...]
    written: tuple[int, ...]
    summand: Node | None = None
    scalars: tuple[Node, ...] = ()
    total: Node | None = None
    norm: Node | None = None


def _array(position: int, dtype: str) -> Node:
    return Node("input", (), (position,), _SHAPE, dtype)


def _scalar(name: str, dtype: str) -> Node:
    return Node("input", (), (name,), (), dtype)


def _loads(known: dict[Node, str]) -> Callable[[Node, str], str | None]:
    return lambda node, hint: known.get(node)


class _Loop:
    """The launches that compute formulas for the leaves of some trees.

    ``dtypes`` are the dtypes of the trees' arrays. A leaf has one of the formulas.
    """

    def __init__(self, name: str, dtypes: Sequence[str], formulas: Sequence[_Formula]) -> None:
        self._name, self._dtypes = name, dtypes
        self._parameters, self.has_sum, self.has_total = Parameters(), False, False
        choices = []
        for formula in formulas:
            known = {_array(k, dtype): f"x{k}" for k, dtype in enumerate(dtypes)}
            for node in formula.scalars:
                known[node] = f"{self._parameters.add('array', node)}[0]"
            if formula.total is not None:
                known[formula.total], self.has_total = "all", True
            wanted = [*formula.results, *([] if formula.summand is None else [formula.summand])]
            lines, names = print_element(wanted, _loads(known), self._parameters)
            lines += [f"new_x{k} = {x};" for k, x in zip(formula.written, names, strict=False)]
            if formula.summand is not None:
                self.has_sum = True
                lines.append(f"sum += {names[-1]};")
            choices.append(" ".join(lines))
        self._end = ""
        if formulas[0].norm is not None:
            lines, (norm,) = print_element([formulas[0].norm], _loads(known), self._parameters)
            stored = f"{' '.join(lines)} norm[0] = {norm};"
            self._end = f"  if (blockIdx.x == 0 && threadIdx.x == 0) {{ {stored} }}"
        cases = "\n".join(
            f"      {'else ' if k else ''}if (mark == {k}) {{ {choice} }}"
            for k, choice in enumerate(choices)
        )
        self._loop = cases if len(choices) > 1 else f"      {choices[0]}"
        self._written = sorted({k for formula in formulas for k in formula.written})

    def kernel(self, marks: tuple[int, ...]) -> Any:
        """Return the kernel for leaves with these formulas."""
        scalars = list(self._parameters.declared)
        if self.has_sum:
            scalars.append("T* parts")
        if self.has_total:
            scalars += ["const T* parts", "long long n_parts", "T* norm"]
        reads = {f"x{k}": f"F{k}" for k in range(len(self._dtypes))}
        writes = {f"x{k}": f"F{k}" for k in self._written}
        prologue = _ADD_PARTS if self.has_total else "  T sum = 0;" if self.has_sum else ""
        epilogue = _LEAVE_SUM if self.has_sum else self._end
        trees = reads, writes, marks
        body = multi_tensor(", ".join(scalars), *trees, self._loop, prologue, epilogue)
        types = {"T": self._dtypes[0]} | {f"F{k}": d for k, d in enumerate(self._dtypes)}
        return raw_kernel(self._name, body, types, OPTIONS, PACKS, WIDTH=width_of(self._dtypes))

    def run(
        self,
        members: list[tuple[Any, ...]],
        marks: Sequence[int],
        values: dict[Node, Any],
        sums: Callable[[slice], tuple[Any, ...]],
    ) -> None:
        """Launch the loop over the arrays of the leaves."""
        numbers = [p.number if p.node is None else values[p.node] for p in self._parameters.names]
        launch(
            lambda some: self.kernel(tuple(marks[some])),
            lambda blocks: (*numbers, *sums(blocks)),
            members,
        )


def _split_sum(nodes: Sequence[Node]) -> Node | None:
    """Return the only sum among what nodes are computed from; None if there is none.

    Raise UnprintableError if the rest is not elementwise.
    """
    sums = [node for node in in_order(nodes) if node.operation == "sum"]
    for node in in_order(nodes):
        is_flat = math.prod(node.shape) in (1, math.prod(_SHAPE))
        if not (is_leaf(node) or node in sums or (is_map(node) and is_flat)):
            raise UnprintableError(node.operation)
    if len(sums) > 1:
        raise UnprintableError("there are several sums")
    return sums[0] if sums else None


# --- update --------------------------------------------------------------------------------------


class _Rule(NamedTuple):
    """A rule for one kind of parameter: its formula, and its penalty as a node."""

    formula: _Formula
    penalty: Node | None


@cache
def _trace_rule(
    rule: Optimizer, kind: Any, dtypes: tuple[str, ...], places: tuple[int, ...], has_penalty: bool
) -> _Rule | None:
    """Return the formula of a rule, or None if it is not elementwise.

    The arrays are the parameter, the gradient, and the rule's state. ``places`` are the numbers of
    the coefficients, which differ if one rule has several learning rates in `ByKind`.
    """
    dtype = dtypes[0]
    arrays = [TracedArray(_array(k, d)) for k, d in enumerate(dtypes)]
    coefs = [_scalar(f"coefficient {k}", dtype) for k in places]
    l2 = _scalar("l2", dtype) if has_penalty else None
    n_states = len(rule.state_type._fields)
    p, g, *states = arrays
    given = tuple(map(TracedArray, coefs)), None if l2 is None else TracedArray(l2)
    xp: Any = traced.Namespace(dtype)
    try:
        new, kept, penalty = update_array(rule, kind, p, g, tuple(states[:n_states]), *given, xp=xp)
        results, of_penalty = nodes_of((new, kept)), nodes_of(penalty)
        total = _split_sum([*results, *of_penalty])
        if total is not None and any(total in in_order([node]) for node in results):
            return None
    except Exception as error:
        if not is_of_formula(error):
            raise
        return None
    written = (0, *range(2, 2 + len(results) - 1))
    scalars = tuple(coefs) + (() if l2 is None else (l2,))
    summand = None if total is None else total.operands[0]
    formula = _Formula(tuple(results), written, summand, scalars)
    return _Rule(formula, of_penalty[0] if of_penalty else None)


@cache
def _update_loop(dtypes: tuple[str, ...], formulas: tuple[_Formula, ...]) -> _Loop:
    return _Loop("mlp_xp_update", dtypes, formulas)


@cache
def _penalty_plan(penalty: Node, n_parts: int, device: int) -> Plan:
    """Return what computes the penalty, the sum's only use, from the sums of blocks."""
    total = _split_sum([penalty])
    assert total is not None
    parts = Node("input", (), ("parts",), (n_parts,), total.dtype)
    new = Node("sum", (parts,), ((0,),), (), total.dtype)
    others = [node for node in in_order([penalty], [total]) if node.operation == "input"]
    return Plan("mlp_xp_penalty", replaced([penalty], {total: new}), [parts, *others])


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

    Arrays whose rule is not elementwise, such as the hidden matrices in Muon, are updated one by
    one.
    """
    members = list(zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True))
    scalars = coefs if l2 is None else (*coefs, l2)
    if n_leading or not _accepts(members, scalars):
        return optimizers.update_tree(
            optimizer, params, grads, opt_state, coefs, l2, n_leading=n_leading, xp=xp
        )
    updated: list[Any] = [(p, states) for p, _, *states in members]
    penalty: Any = 0.0
    groups: dict[int, list[tuple[int, _Rule, dict[Node, Any]]]] = {}
    dtypes = tuple(array.dtype.name for array in members[0])
    numbers: dict[int, int] = {}  # Coefficients are numbered by identity.
    for i, kind in enumerate(kinds(params)):
        rule, own = rule_of(optimizer, kind, coefs)
        n_arrays = 2 + len(rule.state_type._fields)
        places = tuple(numbers.setdefault(id(x), len(numbers)) for x in own)
        found = _trace_rule(rule, kind, dtypes[:n_arrays], places, l2 is not None)
        if found is None:
            p, g, *states = members[i]
            new, kept, more = update_array(optimizer, kind, p, g, tuple(states), coefs, l2, xp=xp)
            updated[i] = new, kept
            penalty = penalty if more is None else penalty + more
        else:
            values = dict(zip(found.formula.scalars, [*own, l2], strict=False))
            groups.setdefault(n_arrays, []).append((i, found, values))
    for n_arrays, group in groups.items():
        some = [members[i][:n_arrays] for i, _, _ in group]
        formulas = tuple(dict.fromkeys(rule.formula for _, rule, _ in group))
        loop = _update_loop(dtypes[:n_arrays], formulas)
        marks = [formulas.index(rule.formula) for _, rule, _ in group]
        given = {node: x for _, _, values in group for node, x in values.items()}
        parts = cupy.empty(blocks_of(some), dtypes[0]) if loop.has_sum else None
        loop.run(some, marks, given, partial(_slice, parts))
        of_penalty = next((rule.penalty for _, rule, _ in group if rule.penalty is not None), None)
        if parts is not None and of_penalty is not None:
            device = cupy.cuda.runtime.getDevice()
            (more,) = _penalty_plan(of_penalty, parts.size, device)([parts, l2])
            penalty = more if isinstance(penalty, float) else penalty + more
    by_field = zip(*(kept for _, kept in updated), strict=True)
    return Updated(
        rebuild(params, (p for p, _ in updated)),
        optimizer.state_type(*(rebuild(params, arrays) for arrays in by_field)),
        penalty,
    )


def _slice(parts: Any, blocks: slice) -> tuple[Any, ...]:
    return () if parts is None else (parts[blocks],)


def _accepts(members: list[tuple[Any, ...]], scalars: tuple[Any, ...]) -> bool:
    """Whether the kernels support the arrays: contiguous, each tree with one dtype."""
    dtype, gradient = (array.dtype for array in members[0][:2])
    return is_plain(dtype, *scalars) and all(
        is_plain(dtype, p, *states)
        and is_plain(gradient, g)
        and all(array.shape == p.shape for array in (g, *states))
        for p, g, *states in members
    )


# --- average and clipping ------------------------------------------------------------------------


@cache
def _average_loop(dtype: str) -> _Loop:
    a, p, rate = _array(0, dtype), _array(1, dtype), _scalar("rate", dtype)
    given = (TracedArray(a),), (TracedArray(p),), TracedArray(rate)
    xp: Any = traced.Namespace(dtype)
    (new,) = nodes_of(optimizers.averaged(*given, xp=xp))
    return _Loop("mlp_xp_average", (dtype, dtype), [_Formula((new,), (0,), None, (rate,))])


def averaged(average: Tree, params: Tree, rate: Array, *, xp: Namespace) -> Tree:
    """Compute `mlp_xp.optimizers.averaged` in one launch, also for stacks of models."""
    members = list(zip(leaves(average), leaves(params), strict=True))
    is_known = rate.ndim == 0 and all(
        is_plain(members[0][0].dtype, a, p, rate) and a.shape == p.shape for a, p in members
    )
    if not is_known:
        return optimizers.averaged(average, params, rate, xp=xp)
    dtype = members[0][0].dtype.name
    values = {_scalar("rate", dtype): rate}
    _average_loop(dtype).run(members, [0] * len(members), values, lambda blocks: ())
    return average


@cache
def _clip_loops(dtype: str, max_norm: float) -> tuple[_Loop, _Loop]:
    """Return the loops for the norm, and for the scaling."""
    xp: Any = traced.Namespace(dtype)
    scaled, norm = nodes_of(optimizers.clip((TracedArray(_array(0, dtype)),), max_norm, xp=xp))
    total = _split_sum([scaled])
    assert total is not None
    add = _Formula((), (), total.operands[0])
    scale = _Formula((scaled,), (0,), total=total, norm=norm)
    return _Loop("mlp_xp_norm", (dtype,), [add]), _Loop("mlp_xp_clip", (dtype,), [scale])


def clip(grads: Tree, max_norm: float, *, n_leading: int = 0, xp: Namespace) -> tuple[Tree, Array]:
    """Compute `mlp_xp.optimizers.clip` in two launches: for the norm, and for the scaling.

    A third one adds up the sums of blocks if there are many.
    """
    members = [(g,) for g in leaves(grads)]
    is_known = members and all(is_plain(members[0][0].dtype, g) for (g,) in members)
    if not is_known or n_leading or not 0.0 < max_norm < math.inf:
        return optimizers.clip(grads, max_norm, n_leading=n_leading, xp=xp)
    dtype = members[0][0].dtype
    parts, norm = cupy.empty(max(blocks_of(members), 1), dtype), cupy.empty((), dtype)
    marks, given = [0] * len(members), (parts, np.int64(parts.size), norm)
    add, scale = _clip_loops(dtype.name, max_norm)
    add.run(members, marks, {}, lambda blocks: (parts[blocks],))
    if parts.size > _MOST_PARTS:
        given = (add_up(parts).reshape(1), np.int64(1), norm)
    scale.run(members, marks, {}, lambda blocks: given)
    return grads, norm
