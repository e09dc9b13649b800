"""Sums over ranks, in the memory of the gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends.communicator import Communicator

__all__ = ["SumOverRanks"]


@dataclass(frozen=True)
class SumOverRanks:
    """The kernel ``sum_over_ranks`` of a communicator, for tensors in the host's memory."""

    communicator: Communicator

    def __call__(self, tree: Tree) -> Tree:
        """Sum tensors, which are donated, over all ranks."""
        taken: set[int] = set()
        tensors = [_own(leaf, taken) for leaf in leaves(tree)]
        self.communicator.sum([tensor.numpy() for tensor in tensors])
        return rebuild(tree, tensors)


def _own(tensor: Any, taken: set[int]) -> Any:
    """Return a contiguous tensor whose memory no other has; ``taken`` addresses grow."""
    tensor = tensor.detach().contiguous()
    if (address := tensor.untyped_storage().data_ptr()) in taken:
        return tensor.clone()
    taken.add(address)
    return tensor
