"""Sums over ranks, in the memory of the gradients; a compiled step records them as one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends._numpy.sparse import call
from mlp_xp.backends._numpy.traced import Traced
from mlp_xp.backends.communicator import Communicator

__all__ = ["SumOverRanks"]


@dataclass(frozen=True)
class SumOverRanks:
    """The kernel ``sum_over_ranks`` of a communicator."""

    communicator: Communicator

    def __call__(self, tree: Tree) -> Tree:
        """Sum arrays, which are donated, over all ranks."""
        taken: set[int] = set()
        arrays = [_writable(leaf, taken) for leaf in leaves(tree)]
        call(self._sum, *arrays)
        return rebuild(tree, arrays)

    def _sum(self, *arrays: np.ndarray) -> None:
        self.communicator.sum(arrays)


def _writable(array: Any, taken: set[int]) -> Any:
    """Return an array, or a copy where its memory is not its own; ``taken`` owners grow."""
    owner: Any
    if isinstance(array, Traced):
        owner = array.owner
        is_own = owner.is_pooled
    else:
        owner = array if getattr(array, "base", None) is None else array.base
        is_own = isinstance(array, np.ndarray) and array.flags.writeable
    if not (is_own and array.flags.c_contiguous) or id(owner) in taken:
        copied = np.positive(array)
        # NumPy returns a number for an array without axes.
        return copied if isinstance(copied, Traced) else np.asarray(copied)
    taken.add(id(owner))
    return array
