"""Functions that select parameters by kind."""

from __future__ import annotations

from typing import Any

from mlp_xp._utils.array_types import Array, Tree
from mlp_xp.nn.layers import Dense, Heads


def entries(params: Tree) -> list[Any]:
    """Return the NamedTuples of all blocks that have parameters, from first to last."""
    if hasattr(params, "_fields"):
        return [params]
    return [entry for branch in params for entry in entries(branch)]


def denses(params: Tree) -> list[Dense]:
    """Return the dense layers' parameters, from first to last."""
    return [entry for entry in entries(params) if isinstance(entry, Dense)]


def one_number(params: Tree) -> Array:
    """Return each model's first output bias; the axes of the result count models."""
    heads = [entry for entry in entries(params) if isinstance(entry, Heads)]
    number: Array = heads[-1].b[..., 0, 0] if heads else denses(params)[-1].b[..., 0]
    return number
