"""Update all parameters in one launch, update their moving average, and clip the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from mlp_xp import optimizers
from mlp_xp._utils.array_types import Array, Namespace, Tree
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends._cupy.kernels.multi_tensor import MOST_ARRAYS, blocks_of, launch, multi_tensor
from mlp_xp.backends._cupy.kernels.rendering import FLOATS, is_plain, kernel, raw_kernel, total
from mlp_xp.optimizers import (
    SGD,
    Adam,
    AdamW,
    Lion,
    Optimizer,
    RMSprop,
    Updated,
    kinds,
    rule_of,
    update_array,
)

# For each update rule, the C names of its state, and C code that updates a parameter p with the
# gradient `slope`. c0, c1, ... are constants; `rate` and `shrink` are from
# `Optimizer.coefficients`.
_RULES: dict[str, tuple[tuple[str, ...], str]] = {
    "sgd": ((), "p -= rate[0] * slope;"),
    "momentum": (
        ("v",),
        "const T velocity = c0 * v[i] - rate[0] * slope; v[i] = velocity; p += velocity;",
    ),
    "nesterov": (
        ("v",),
        """const T move = rate[0] * slope, velocity = c0 * v[i] - move;
        v[i] = velocity;
        p += c0 * velocity - move;""",
    ),
    "adam": (
        ("m", "v"),
        """const T mean = c0 * m[i] + c1 * slope, variance = c2 * v[i] + c3 * (slope * slope);
        m[i] = mean;
        v[i] = variance;
        p -= rate[0] * (mean / (sqrt(variance) + c4));""",
    ),
    "lion": (
        ("m",),
        """const T mean = m[i], mixed = c0 * mean + c1 * slope;
        p -= rate[0] * (mixed > T(0) ? T(1) : mixed < T(0) ? T(-1) : mixed);
        m[i] = c2 * mean + c3 * slope;""",
    ),
    "rmsprop": (
        ("v",),
        """const T variance = c0 * v[i] + c1 * (slope * slope);
        v[i] = variance;
        p -= rate[0] * (slope / (sqrt(variance) + c2));""",
    ),
    "rmsprop_momentum": (
        ("v", "b"),
        """const T variance = c0 * v[i] + c1 * (slope * slope);
        const T velocity = c3 * b[i] + slope / (sqrt(variance) + c2);
        v[i] = variance;
        b[i] = velocity;
        p -= rate[0] * velocity;""",
    ),
}
_N_CONSTANTS = 5

# As in the default kernel, a low-precision gradient is rounded after the penalty is added.
_EACH = """
    T p = params[i], slope = g[i];
    if (PENALTY && mark) {{
      sum += p * p;
      slope = G(slope + l2[0] * p);
    }}
    if (DECAY && mark) p *= shrink[0];
    {move}
    params[i] = p;"""
_LEAVE_SUM = """
  __shared__ T shared[THREADS];
  sum = sum_of<THREADS, 1>(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;"""
_END = f"  if (PENALTY) {{{_LEAVE_SUM}\n  }}"
# Every block adds up all partial sums of the squared norm. The comparison propagates NaN.
_LENGTH = """
  __shared__ T shared[THREADS];
  T sum = 0;
  for (long long i = threadIdx.x; i < n_parts; i += THREADS) sum += parts[i];
  const T length = sqrt(sum_of<THREADS, 1>(sum, shared));
  const T factor = largest / (length < largest ? largest : length);"""

_UPDATE_VARIANTS = (
    *((rule, dtype, dtype, (True, False), 1, 1) for rule in _RULES for dtype in FLOATS),
    *((rule, FLOATS[1], FLOATS[0], (True,), 1, 0) for rule in _RULES),
    ("adam", FLOATS[0], FLOATS[0], (True, False) * (MOST_ARRAYS // 2), 0, 0),
)


@kernel(*_UPDATE_VARIANTS)
def _update_kernel(
    rule: str, dtype: str, gradient: str, marks: tuple[bool, ...], penalty: int, decay: int
) -> Any:
    """Return the update kernel; ``marks`` select the matrices, which have penalty and decay."""
    states, move = _RULES[rule]
    constants = ", ".join(f"T c{k}" for k in range(_N_CONSTANTS))
    scalars = f"const T* rate, const T* shrink, const T* l2, T* parts, {constants}"
    fields = {"params": "T*", "g": "const G*"} | dict.fromkeys(states, "T*")
    body = multi_tensor(scalars, fields, marks, "  T sum = 0;", _EACH.format(move=move), _END)
    types = {"T": dtype, "G": gradient}
    return raw_kernel(f"mlp_xp_{rule}", body, types, PENALTY=penalty, DECAY=decay)


# The arguments of `multi_tensor` for each kernel: scalars, fields, prologue, loop, epilogue.
_WALKS: dict[str, tuple[str, dict[str, str], str, str, str]] = {
    "average": (
        "const T* rate",
        {"average": "T*", "p": "const T*"},
        "",
        "    average[i] += rate[0] * (p[i] - average[i]);",
        "",
    ),
    "norm": ("T* parts", {"g": "const T*"}, "  T sum = 0;", "    sum += g[i] * g[i];", _LEAVE_SUM),
    "clip": (
        "const T* parts, long long n_parts, T largest, T* norm",
        {"g": "T*"},
        _LENGTH,
        "    g[i] *= factor;",
        "  if (blockIdx.x == 0 && threadIdx.x == 0) norm[0] = length;",
    ),
}


@kernel(*((name, dtype, 2) for name in _WALKS for dtype in FLOATS))
def _walk_kernel(name: str, dtype: str, n_arrays: int) -> Any:
    scalars, fields, *statements = _WALKS[name]
    body = multi_tensor(scalars, fields, (False,) * n_arrays, *statements)
    return raw_kernel(f"mlp_xp_{name}", body, {"T": dtype})


def _walk(
    name: str, members: list[tuple[Any, ...]], scalars_of: Callable[[slice], tuple[Any, ...]]
) -> None:
    dtype = members[0][0].dtype.str
    launch(lambda some: _walk_kernel(name, dtype, len(members[some])), scalars_of, members)


def _settings(optimizer: Optimizer) -> tuple[str, tuple[float, ...]] | None:
    """Return the kernel name and the constants of a rule, or None if it has no kernel."""
    # A subclass may override the update, so its rule has no kernel.
    if type(optimizer) not in (SGD, Adam, AdamW, Lion, RMSprop):
        return None
    match optimizer:
        case SGD(momentum=0.0):
            return "sgd", ()
        case SGD(momentum, nesterov):
            return "nesterov" if nesterov else "momentum", (momentum,)
        case Adam(beta_1, beta_2, epsilon):
            return "adam", (beta_1, 1.0 - beta_1, beta_2, 1.0 - beta_2, epsilon)
        case Lion(beta_1, beta_2):
            return "lion", (beta_1, 1.0 - beta_1, beta_2, 1.0 - beta_2)
        case RMSprop(rho, epsilon, momentum):
            name = "rmsprop_momentum" if momentum else "rmsprop"
            return name, (rho, 1.0 - rho, epsilon, momentum)
    return None


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

    Arrays whose rule has no kernel, such as the hidden matrices in Muon, are updated one by one.
    """
    members = list(zip(leaves(params), leaves(grads), *map(leaves, opt_state), strict=True))
    of_kinds = kinds(params, n_leading)
    rules = [rule_of(optimizer, kind, coefs) for kind in of_kinds]
    # In a stack of models, settings are arrays, which the kernels do not support.
    is_known = [not n_leading and _settings(rule) is not None for rule, _ in rules]
    scalars = coefs if l2 is None else (*coefs, l2)
    if not any(is_known) or not _accepts(members, scalars):
        return optimizers.update_tree(
            optimizer, params, grads, opt_state, coefs, l2, n_leading=n_leading, xp=xp
        )
    updated = [(p, states) for p, _, *states in members]
    penalty: Any = 0.0
    groups: dict[tuple[Optimizer, int], list[int]] = {}
    for i, (kind, (rule, own)) in enumerate(zip(of_kinds, rules, strict=True)):
        if is_known[i]:
            groups.setdefault((rule, id(own[0])), []).append(i)
            continue
        p, g, *states = members[i]
        new, kept, more = update_array(optimizer, kind, p, g, tuple(states), coefs, l2, xp=xp)
        updated[i] = new, kept
        penalty = penalty if more is None else penalty + more
    for group in groups.values():
        some = [members[i] for i in group]
        marks = tuple(of_kinds[i] != "vector" for i in group)
        parts = _update(*rules[group[0]], some, marks, l2 if any(marks) else None)
        if parts is not None:
            more = total(parts, l2, 0.5)
            penalty = more if isinstance(penalty, float) else penalty + more
    by_field = zip(*(kept for _, kept in updated), strict=True)
    return Updated(
        rebuild(params, (p for p, _ in updated)),
        optimizer.state_type(*(rebuild(params, arrays) for arrays in by_field)),
        penalty,
    )


def _update(
    rule: Optimizer,
    coefs: tuple[Any, ...],
    members: list[tuple[Any, ...]],
    marks: tuple[bool, ...],
    l2: Any,
) -> Any:
    """Update arrays that share one rule; return each block's sum of squares for the penalty."""
    settings = _settings(rule)
    assert settings is not None
    name, constants = settings
    n_states = len(_RULES[name][0])
    dtype, gradient = (array.dtype for array in members[0][:2])
    has_decay = bool(getattr(rule, "weight_decay", 0.0))
    padded = (*constants, *[0.0] * (_N_CONSTANTS - len(constants)))
    numbers = tuple(map(dtype.type, padded))
    parts = cupy.empty(blocks_of(members), dtype)
    rate, shrink = coefs[0], coefs[1 if has_decay else 0]

    def kernel_of(some: slice) -> Any:
        flags = int(l2 is not None), int(has_decay)
        return _update_kernel(name, dtype.str, gradient.str, marks[some], *flags)

    def scalars_of(blocks: slice) -> tuple[Any, ...]:
        return rate, shrink, rate if l2 is None else l2, parts[blocks], *numbers

    launch(kernel_of, scalars_of, [arrays[: 2 + n_states] for arrays in members])
    return None if l2 is None else parts


def _accepts(members: list[tuple[Any, ...]], scalars: tuple[Any, ...]) -> bool:
    """Whether the kernels support the arrays: contiguous, each tree with one dtype."""
    dtype, gradient = (array.dtype for array in members[0][:2])
    return is_plain(dtype, *scalars) and all(
        is_plain(dtype, p, *states)
        and is_plain(gradient, g)
        and all(array.shape == p.shape for array in (g, *states))
        for p, g, *states in members
    )


def averaged(average: Tree, params: Tree, rate: Array, *, xp: Namespace) -> Tree:
    """Compute `mlp_xp.optimizers.averaged` in one launch, also for stacks of models."""
    members = list(zip(leaves(average), leaves(params), strict=True))
    is_known = rate.ndim == 0 and all(
        is_plain(members[0][0].dtype, a, p, rate) and a.shape == p.shape for a, p in members
    )
    if not is_known:
        return optimizers.averaged(average, params, rate, xp=xp)
    _walk("average", members, lambda blocks: (rate,))
    return average


def clip(grads: Tree, max_norm: float, *, n_leading: int = 0, xp: Namespace) -> tuple[Tree, Array]:
    """Compute `mlp_xp.optimizers.clip` in two launches: for the norm, and for the scaling."""
    members = [(g,) for g in leaves(grads)]
    is_known = members and all(is_plain(members[0][0].dtype, g) for (g,) in members)
    if not is_known or n_leading or not 0.0 < max_norm < math.inf:
        return optimizers.clip(grads, max_norm, n_leading=n_leading, xp=xp)
    dtype = members[0][0].dtype
    parts, norm = cupy.empty(max(blocks_of(members), 1), dtype), cupy.empty((), dtype)
    _walk("norm", members, lambda blocks: (parts[blocks],))
    numbers = parts, np.int64(parts.size), dtype.type(max_norm), norm
    _walk("clip", members, lambda blocks: numbers)
    return grads, norm
