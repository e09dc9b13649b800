"""Sums over ranks for PyTorch, in place."""

from __future__ import annotations

import atexit
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends import Backend
from mlp_xp.backends._cuda.captured import report
from mlp_xp.backends._torch.backend import TorchBackend
from mlp_xp.distributed.backends._base import RankBackend
from mlp_xp.distributed.communicator import LONG_BYTES, Communicator
from mlp_xp.distributed.training.gradient import PendingSum


@dataclass(frozen=True)
class SumOverRanks:
    """A sum of tensors over ranks, by the communicator or torch's default process group.

    The group, ``"nccl"`` for GPUs with one rank per device or ``"gloo"`` for host memory, is
    started if necessary.
    """

    communicator: Communicator
    group: str = ""

    def __call__(self, tree: Tree) -> Tree:
        """Sum donated tensors over all ranks, and wait for pending sums."""
        flat, taken = leaves(tree), set[int]()
        pending = [leaf for leaf in flat if isinstance(leaf, PendingSum)]
        others = [_own(leaf, taken) for leaf in flat if not isinstance(leaf, PendingSum)]
        self._sum(others)
        for leaf in pending:
            leaf.wait()
        remaining = iter(others)
        return map_leaves(
            lambda leaf: leaf.array if isinstance(leaf, PendingSum) else next(remaining), tree
        )

    def start(self, tensor: Any) -> Any:
        """Start summing a large tensor in place; return the pending sum, or the tensor itself."""
        is_whole = tensor.dtype in (torch.float32, torch.float64) and tensor.is_contiguous()
        if is_whole and tensor.nbytes >= LONG_BYTES:
            return PendingSum(tensor, self._start(tensor))
        return tensor

    def _start(self, tensor: Any) -> Callable[[], Any]:
        """Start summing a tensor, and return the function that waits for the result."""
        if not self.group:
            return self.communicator.start_sum(tensor.numpy())
        _start_group(self.communicator, self.group)
        wait: Callable[[], Any] = torch.distributed.all_reduce(tensor, async_op=True).wait
        return wait

    def _sum(self, tensors: list[Any]) -> None:
        if not self.group:
            self.communicator.sum([tensor.numpy() for tensor in tensors])  # Packs short tensors.
            return
        for wait in [self._start(tensor) for tensor in tensors]:
            wait()


@dataclass(frozen=True)
class SentDense:
    """The kernel ``dense``, which sums gradients over ranks while computing further gradients."""

    dense: Callable[..., Any]
    sums: SumOverRanks

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Apply `mlp_xp.nn.layers.affine`."""
        y, pullback = self.dense(*args, **options)

        def send(dy: Any, **asked: Any) -> Any:
            dx, grads = pullback(dy, **asked)
            return dx, map_leaves(self.sums.start, grads)

        return y, send


class TorchRankBackend(RankBackend, TorchBackend):
    """PyTorch on several ranks."""

    def __init__(self, backend: Backend, communicator: Communicator) -> None:
        super().__init__(backend, communicator)
        sums: Any = self.gradient.sum_over_ranks
        # On one machine, sums and gradients compete for processors, so summing at the end is 5 %
        # faster.
        is_far = isinstance(sums, SumOverRanks) and (communicator.n_machines > 1 or sums.group)
        if is_far and not communicator.n_shards:
            self.gradient = replace(self.gradient, dense=SentDense(self.kernels.dense, sums))

    def _summing(self, backend: Backend) -> Callable[[Tree], Tree]:
        if self.device.type == "cpu":
            return SumOverRanks(self.communicator)
        if self.device.type == "cuda":
            return SumOverRanks(self.communicator, "nccl")
        return super()._summing(backend)

    def loop(self, body: Callable[..., Any]) -> Callable[..., Any] | None:
        if self.device.type == "cuda":  # Capturing a CUDA graph would wait for other ranks.
            report(body, "sums over ranks")
        return None


KIND = TorchRankBackend


@cache
def _start_group(communicator: Communicator, kind: str) -> None:
    """Start torch's default process group for all ranks, unless it exists."""
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
    # The group's threads must end before the process does.
    atexit.register(torch.distributed.destroy_process_group)


def _own(tensor: Any, taken: set[int]) -> Any:
    """Return a contiguous tensor, copied if its address is in ``taken``; add its new address."""
    tensor = tensor.detach().contiguous()
    if (address := tensor.untyped_storage().data_ptr()) in taken:
        return tensor.clone()
    taken.add(address)
    return tensor
