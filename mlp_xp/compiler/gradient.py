"""Reverse-mode differentiation of graphs.

References
----------
Griewank, Walther, "Evaluating Derivatives" (2008), chapter 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlp_xp.compiler.array import TracedArray, is_float
from mlp_xp.compiler.graph import FormulaError, Node, in_order
from mlp_xp.compiler.namespace import Namespace
from mlp_xp.compiler.primitives import PRIMITIVES, ZERO


def gradient(
    results: Sequence[Node], cotangents: Sequence[Node], inputs: Sequence[Node]
) -> list[Node | None]:
    """Return the gradient of ``sum_k sum(results[k] * cotangents[k])`` for each input.

    The gradient of an input that does not affect the results is None.
    """
    wanted = set(inputs)
    order = in_order(results)
    active: set[Node] = set()
    for node in order:
        if is_float(node.dtype) and (node in wanted or active.intersection(node.operands)):
            active.add(node)
    adjoints: dict[Node, TracedArray] = {}
    for result, cotangent in zip(results, cotangents, strict=True):
        if result in active:
            _add(adjoints, result, TracedArray(cotangent))
    for node in reversed(order):
        if node not in adjoints or node not in active or node in wanted:
            continue
        for operand, dx in zip(node.operands, _differentiate(node, adjoints[node]), strict=False):
            if dx is not None and operand in active:
                _add(adjoints, operand, _gradient_of(operand, dx))
    return [adjoints[x].node if x in adjoints else None for x in inputs]


def _add(adjoints: dict[Node, TracedArray], node: Node, dx: TracedArray) -> None:
    adjoints[node] = adjoints[node] + dx if node in adjoints else dx


def _differentiate(node: Node, dy: TracedArray) -> Sequence[TracedArray | None]:
    rule = PRIMITIVES[node.operation].derivative
    if rule is ZERO:
        return [None] * len(node.operands)
    if rule is None:
        raise FormulaError(
            f"xp.{node.operation} has no derivative here; write it with other functions, or return "
            "a pullback too."
        )
    operands = [x.settings[0] if x.operation == "number" else TracedArray(x) for x in node.operands]
    found: Sequence[TracedArray | None] = rule(
        Namespace(node.dtype), dy, TracedArray(node), *operands, *node.settings
    )
    return found


def _gradient_of(operand: Node, dx: TracedArray) -> TracedArray:
    """Return the gradient of an operand, which was broadcast and converted to another dtype."""
    xp = Namespace(operand.dtype)
    n_new = dx.ndim - len(operand.shape)
    axes = [i for i, n in enumerate(dx.shape) if i < n_new or operand.shape[i - n_new] != n]
    if axes:
        dx = xp.reshape(xp.sum(dx, axis=tuple(axes)), operand.shape)
    return xp.astype(dx, operand.dtype, copy=False)
