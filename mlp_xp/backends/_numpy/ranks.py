"""Sums over ranks, in the memory of the gradients; a compiled step records them as calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends._numpy.jobs import address
from mlp_xp.backends._numpy.sparse import call
from mlp_xp.backends._numpy.traced import Traced
from mlp_xp.backends.communicator import Communicator

__all__ = ["DenseOfRanks", "SumOverRanks"]

# The gradient of a layer travels in so many pieces at most, of at least so many bytes, between
# machines: the first are on their way while the next are computed. Rows of a piece are a multiple.
_PIECES, _PIECE_BYTES, _MULTIPLE = 8, 1 << 20, 12
# Shorter arrays are summed together.
_LONG_BYTES = 1 << 16


@dataclass(frozen=True)
class SumOverRanks:
    """The kernel ``sum_over_ranks`` of a communicator; some sums have been started before."""

    communicator: Communicator
    # By the address of an array: what waits for the sums of its pieces.
    _waits: dict[int, list[Callable[[], None]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __call__(self, tree: Tree) -> Tree:
        """Sum arrays, which are donated, over all ranks."""
        taken: set[int] = set()
        arrays = [_writable(leaf, taken) for leaf in leaves(tree)]
        call(self._sum, *arrays)
        return rebuild(tree, arrays)

    def _sum(self, *arrays: np.ndarray) -> None:
        self.communicator.sum([a for a in arrays if address(a) not in self._waits])
        for array in arrays:
            for wait in self._waits.pop(address(array), ()):
                wait()

    def is_long(self, array: Any) -> bool:
        """Whether the sum of an array takes longer than to start it."""
        return bool(array.size * array.itemsize >= _LONG_BYTES)

    def empty_like(self, array: Any) -> Any:
        """Return memory for the gradient of an array."""
        memory = self.communicator.empty(array.shape, array.dtype)
        if isinstance(array, Traced):
            return Traced(array.program, memory, is_pooled=True)
        return memory

    def pieces(self, array: Any) -> list[slice]:
        """Return the rows of an array that travel together."""
        n = 1
        if self.communicator.n_machines > 1:
            n = max(1, min(_PIECES, array.size * array.itemsize // _PIECE_BYTES))
        step = -(-array.shape[0] // n)
        step += -step % _MULTIPLE
        return [slice(i, i + step) for i in range(0, array.shape[0], step)]

    def start(self, array: Any, rows: slice) -> None:
        """Start to sum some rows of an array, which a later call for the array waits for."""
        call(self._start, array, rows)

    def _start(self, array: np.ndarray, rows: slice) -> None:
        wait = self.communicator.start_sum(array[rows])
        self._waits.setdefault(address(array), []).append(wait)


@dataclass(frozen=True)
class DenseOfRanks:
    """The kernel ``dense``, whose gradients travel to other ranks while others are computed."""

    dense: Callable[..., Any]
    ranks: SumOverRanks

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Compute `mlp_xp.nn.layers.affine`."""
        return self.dense(*args, ranks=self.ranks, **options)


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
        return np.positive(array) if isinstance(array, Traced) else np.array(array, order="C")
    taken.add(id(owner))
    return array
