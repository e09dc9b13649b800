"""PyTorch's process group; the ranks are the processes started by ``torchrun``."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from mlp_xp._utils.optional import optional
from mlp_xp.distributed.communicator import Communicator

T = TypeVar("T")

# The environment variables that torchrun sets for each process.
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class TorchCommunicator(Communicator):
    """The ranks of the default process group; ``torch`` is the module."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._group = torch.distributed
        self.rank = self._group.get_rank()
        self.size = self._group.get_world_size()

    def sum(self, arrays: Sequence[np.ndarray]) -> None:
        for wait in [self.start_sum(array) for array in arrays]:
            wait()

    def start_sum(self, array: np.ndarray) -> Callable[[], None]:
        tensor = self._torch.from_numpy(array)
        wait: Callable[[], None] = self._group.all_reduce(tensor, async_op=True).wait
        return wait

    def broadcast(self, value: T, root: int = 0) -> T:
        values = [value]
        self._group.broadcast_object_list(values, src=root)
        return values[0]

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        self._group.all_gather_object(values, value)
        return values

    def abort(self, code: int = 1) -> None:
        with contextlib.suppress(Exception):  # Its reader may have exited.
            sys.stdout.flush()
        os._exit(code)  # torchrun then ends the other ranks.


def create() -> TorchCommunicator:
    """Return the communicator for the default process group, which is started if necessary."""
    torch = optional("torch", "torch")
    if not torch.distributed.is_initialized():
        missing = [name for name in _VARIABLES if name not in os.environ]
        if missing:
            raise RuntimeError(
                "distributed='torch' requires processes started by torchrun, but "
                f"{missing[0]} is not set: type torchrun --nproc-per-node 2 script.py, or use "
                "distributed='mpi' with mpiexec."
            )
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend)
        # The group's threads must end before the process does.
        atexit.register(torch.distributed.destroy_process_group)
    return TorchCommunicator(torch)
