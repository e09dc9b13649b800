"""Sums over ranks, in the memory of the gradients."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.backends.communicator import Communicator

__all__ = ["SumInGroup", "SumOverRanks"]


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


@dataclass(frozen=True)
class SumInGroup:
    """The kernel ``sum_over_ranks`` in torch's default process group.

    Parameters
    ----------
    communicator : Communicator
        Its ranks start the group, unless ``torchrun`` has done so.
    kind : {"nccl", "gloo"}
        NCCL sums tensors on the GPUs, one rank a device; gloo in the host's memory.
    """

    communicator: Communicator
    kind: str

    def __call__(self, tree: Tree) -> Tree:
        """Sum tensors, which are donated, over all ranks."""
        _start_group(self.communicator, self.kind)
        taken: set[int] = set()
        tensors = [_own(leaf, taken) for leaf in leaves(tree)]
        for work in [torch.distributed.all_reduce(t, async_op=True) for t in tensors]:
            work.wait()
        return rebuild(tree, tensors)


@cache
def _start_group(communicator: Communicator, kind: str) -> None:
    """Start torch's default process group among the ranks, unless there is one."""
    if torch.distributed.is_initialized():
        return
    rank, size = communicator.rank, communicator.size
    store = None
    if rank == 0:
        host = socket.gethostname()
        store = torch.distributed.TCPStore(host, 0, size, is_master=True, wait_for_workers=False)
    place = communicator.broadcast(None if store is None else (store.host, store.port))
    if store is None:
        assert place is not None
        store = torch.distributed.TCPStore(*place, size, is_master=False)
    torch.distributed.init_process_group(kind, store=store, rank=rank, world_size=size)


def _own(tensor: Any, taken: set[int]) -> Any:
    """Return a contiguous tensor whose memory no other has; ``taken`` addresses grow."""
    tensor = tensor.detach().contiguous()
    if (address := tensor.untyped_storage().data_ptr()) in taken:
        return tensor.clone()
    taken.add(address)
    return tensor
