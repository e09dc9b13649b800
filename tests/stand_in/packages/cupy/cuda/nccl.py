"""The part of NCCL that sums over ranks, among the processes of an mpiexec."""

import ctypes
import os
from typing import Any

import numpy as np
from mpi4py import MPI

from cupy import _launch

available = True
NCCL_SUM, NCCL_FLOAT32, NCCL_FLOAT64 = 0, 7, 8
_DTYPES = {NCCL_FLOAT32: np.float32, NCCL_FLOAT64: np.float64}
_group: list[tuple[Any, ...]] | None = None


def get_unique_id() -> tuple[int, ...]:
    return tuple(os.urandom(128))


def groupStart() -> None:
    global _group
    assert _group is None
    _group = []


def groupEnd() -> None:
    """Run what was called in the group, after the work that its streams have queued."""
    global _group
    assert _group is not None
    calls, _group = _group, None
    for place, count, dtype, stream in calls:
        _launch.synchronize(_launch.queue_at(stream, None))
        n_bytes = count * dtype().itemsize
        memory = np.frombuffer((ctypes.c_uint8 * n_bytes).from_address(place), dtype)
        MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, memory)


class NcclCommunicator:
    """The processes that were given the same id; each says which one it is."""

    def __init__(self, ndev: int, commId: tuple[int, ...], rank: int) -> None:
        everybody = MPI.COMM_WORLD.allgather((ndev, commId, rank))
        assert everybody == [(ndev, commId, i) for i in range(ndev)]

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream) -> None:
        assert sendbuf == recvbuf
        assert op == NCCL_SUM
        assert _group is not None, "a launch of its own for each array"
        _group.append((recvbuf, count, _DTYPES[datatype], stream))
