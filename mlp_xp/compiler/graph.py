"""Graphs of array operations: immutable nodes, where equal nodes are interchangeable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class FormulaError(ValueError):
    """The error for a formula that cannot be traced or differentiated."""


@dataclass(frozen=True)
class Layout:
    """The shape and the dtype of an array, which is all that a formula may depend on."""

    shape: tuple[int, ...]
    dtype: str


class Node:
    """An operation on other nodes, with the shape and the dtype of its result.

    Nodes with the same operation, operands and settings have the same ``digest``, also in another
    process, and are equal.

    Attributes
    ----------
    operation : str
        A name in `mlp_xp.compiler.primitives.PRIMITIVES`, or ``"input"``, ``"constant"`` (an array)
        or ``"number"`` (a Python number, which does not change the dtype of the other operand).
    operands : tuple of Node
    settings : tuple
        What else defines the result, e.g. the axis of a sum.
    shape : tuple of int
    dtype : str
        The name of the dtype, e.g. ``"float32"``; ``"float"``, ``"int"`` or ``"bool"`` for numbers.
    value : array or None
        The array of a constant.
    """

    __slots__ = ("digest", "dtype", "operands", "operation", "settings", "shape", "value")

    def __init__(
        self,
        operation: str,
        operands: tuple[Node, ...],
        settings: tuple[Any, ...],
        shape: tuple[int, ...],
        dtype: str,
        value: Any = None,
    ) -> None:
        self.operation, self.operands, self.settings = operation, operands, settings
        self.shape, self.dtype, self.value = shape, dtype, value
        text = repr((operation, settings, shape, dtype)).encode()
        hashed = hashlib.blake2b(text, digest_size=16)
        for operand in operands:
            hashed.update(operand.digest)
        self.digest: bytes = hashed.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<{self.operation} {self.dtype}{list(self.shape)}>"


def in_order(results: Iterable[Node], known: Iterable[Node] = ()) -> list[Node]:
    """Return all nodes that the results need, each once, after its operands.

    Operands of ``known`` nodes are not needed.
    """
    # Without recursion, since a long chain of operations could exceed Python's limit.
    found: dict[Node, None] = {}
    leaves = set(known)
    pending = [(node, False) for node in reversed(list(results))]
    while pending:
        node, is_ready = pending.pop()
        if node in found:
            continue
        if is_ready or node in leaves:
            found[node] = None
        else:
            pending.append((node, True))
            pending += [(operand, False) for operand in reversed(node.operands)]
    return list(found)
