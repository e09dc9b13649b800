"""MPI through mpi4py; the ranks are the processes started by ``mpiexec``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from mlp_xp._utils.optional import install_command, optional
from mlp_xp.distributed._shared_memory import shared_memory
from mlp_xp.distributed.communicator import Communicator, sum_packed

T = TypeVar("T")


class MpiCommunicator(Communicator):
    """The ranks of an MPI communicator; ``mpi`` is the module ``mpi4py.MPI``."""

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        # Duplicate the communicator to separate our messages from other code's.
        self._comm = mpi.COMM_WORLD.Dup()
        self.rank = self._comm.rank
        self.size = self._comm.size
        is_first = self._comm.Split_type(mpi.COMM_TYPE_SHARED).rank == 0
        self.n_machines = self._comm.allreduce(int(is_first))
        self.machine = shared_memory(mpi, self._comm)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        memory = super().empty if self.machine is None else self.machine.empty
        return memory(shape, dtype)

    def sum(self, arrays: Sequence[np.ndarray]) -> None:
        sum_packed(
            arrays, self._start, lambda packed: self._comm.Allreduce(self._mpi.IN_PLACE, packed)
        )

    def start_sum(self, array: np.ndarray) -> Callable[[], None]:
        started = None if self.machine is None else self.machine.start_sum(array)
        return started or self._start(array)

    def _start(self, array: np.ndarray) -> Callable[[], None]:
        wait: Callable[[], None] = self._comm.Iallreduce(self._mpi.IN_PLACE, array).Wait
        return wait

    def broadcast(self, value: T, root: int = 0) -> T:
        received: T = self._comm.bcast(value, root)
        return received

    def gather(self, value: T) -> list[T]:
        received: list[T] = self._comm.allgather(value)
        return received

    def gather_arrays(self, array: np.ndarray) -> list[np.ndarray]:
        arrays = np.empty((self.size, *array.shape), array.dtype)
        self._comm.Allgather(array, arrays)
        return list(arrays)

    def barrier(self) -> None:
        self._comm.Barrier()

    def abort(self, code: int = 1) -> None:
        self._comm.Abort(code)


def create() -> MpiCommunicator:
    """Return the communicator for all processes started together by ``mpiexec``."""
    try:
        mpi = optional("mpi4py.MPI", "mpi")
    except RuntimeError as error:
        raise RuntimeError(
            f"mpi4py finds no MPI library ({error}): type {install_command('mpi')}, or load the "
            "MPI module of your cluster"
        ) from error
    return MpiCommunicator(mpi)
