"""Sums over the ranks of one machine, in memory that all of them see."""

from __future__ import annotations

import math
import mmap
import os
import secrets
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["SharedMemory", "shared_memory"]

# Numbers that are added at a time: they stay in the cache until the next rank's are added to them.
_CHUNK = 1 << 15


class _Place(NamedTuple):
    """The place where other processes find an array: process, file, offset and size in bytes."""

    process: int
    file: int
    offset: int
    size: int


class SharedMemory:
    """Arrays that the ranks of a machine sum in place, each rank a part of them.

    A rank adds the others' numbers to its part, and copies the others' parts. Between machines, the
    ranks with the same part sum it by MPI. MPI alone copies all that it sends and receives: 7.4 MB
    over two ranks then take twice as long within a step (bench/distributed.py).

    Parameters
    ----------
    mpi : module
        ``mpi4py.MPI``.
    node, others : communicators of MPI
        The ranks of this machine, and those of all machines with the same number on theirs.
    """

    def __init__(self, mpi: Any, node: Any, others: Any) -> None:
        self._mpi, self._node, self._others = mpi, node, others
        # By the address of an array of ours: where it is, and what the others' parts of memory are.
        self._places: dict[int, _Place] = {}
        self._mapped: dict[int, dict[bytes, list[np.ndarray]]] = {}

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return memory for an array that is summed again and again."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        file = os.memfd_create("mlp_xp")
        os.ftruncate(file, n_bytes)
        array = np.frombuffer(mmap.mmap(file, n_bytes), dtype)
        address = _address(array)
        self._places[address] = _Place(os.getpid(), file, 0, n_bytes)
        weakref.finalize(array, self._release, address)
        return array.reshape(shape)

    def _release(self, address: int) -> None:
        os.close(self._places.pop(address).file)
        self._mapped.pop(address, None)

    def start_sum(self, array: np.ndarray) -> Callable[[], None] | None:
        """Start to sum an array, and return the function that waits, or None if it is not shared.

        The answer is None on all ranks of a machine, or on none.
        """
        root = array.base if isinstance(array.base, np.ndarray) else array
        own = self._places.get(_address(root), _Place(0, 0, 0, 0))
        place = own._replace(offset=_address(array) - _address(root))
        places = np.empty((self._node.size, len(place)), np.int64)
        self._node.Allgather(np.asarray(place, np.int64), places)  # From here on, all are written.
        if not places[:, 0].all():
            return None
        parts = self._others_parts(array, root, places)
        parts.insert(self._node.rank, array.reshape(-1))
        rank, bounds = self._node.rank, _bounds(array.size, self._node.size)
        start, stop = bounds[rank : rank + 2]
        mine = parts[rank][start:stop]
        for first in range(0, mine.size, _CHUNK):
            chunk = mine[first : first + _CHUNK]
            for part in parts[:rank] + parts[rank + 1 :]:
                chunk += part[start + first : start + first + len(chunk)]
        request = None
        if self._others.size > 1:
            request = self._others.Iallreduce(self._mpi.IN_PLACE, mine)

        def wait() -> None:
            if request is not None:
                request.Wait()
            self._node.Barrier()  # All parts are summed.
            for i, part in enumerate(parts):
                if i != rank:
                    span = slice(*bounds[i : i + 2])
                    parts[rank][span] = part[span]
            self._node.Barrier()  # All have read ours, which may be written again.

        return wait

    def _others_parts(
        self, array: np.ndarray, root: np.ndarray, places: np.ndarray
    ) -> list[np.ndarray]:
        """Return what the other ranks of this machine add to an array, flat."""
        known = self._mapped.setdefault(_address(root), {})
        key = places.tobytes()
        if key not in known:
            others = np.delete(places, self._node.rank, axis=0).tolist()
            known[key] = [_map(_Place(*place), array.dtype, array.size) for place in others]
        return list(known[key])


def shared_memory(mpi: Any, comm: Any) -> SharedMemory | None:
    """Return the shared memory of a communicator's ranks, or None where they cannot have any."""
    node = comm.Split_type(mpi.COMM_TYPE_SHARED)
    others = comm.Split(node.rank, comm.rank)
    sizes = comm.allgather(node.size)
    if min(sizes) != max(sizes) or sizes[0] == 1:
        return None
    shared, works = SharedMemory(mpi, node, others), False
    token = node.bcast(secrets.randbits(32))
    try:
        probe = shared.empty((node.size,), np.float64)
        probe[:] = token
    except (AttributeError, OSError):  # Not on this system.
        probe = np.zeros(node.size)
    try:
        wait = shared.start_sum(probe)
        works = wait is not None
    except OSError:  # The ranks are in containers that do not see each other's processes.
        wait = None
    if not comm.allreduce(works, op=mpi.LAND):
        return None
    assert wait is not None
    wait()
    is_right = bool(np.all(probe == token * node.size))
    return shared if comm.allreduce(is_right, op=mpi.LAND) else None


def _map(place: _Place, dtype: Any, size: int) -> np.ndarray:
    """Return the numbers at a place of another process."""
    file = os.open(f"/proc/{place.process}/fd/{place.file}", os.O_RDWR)
    try:
        memory = mmap.mmap(file, place.size)
    finally:
        os.close(file)
    return np.frombuffer(memory, dtype, size, place.offset)


def _bounds(size: int, n: int) -> list[int]:
    return [size * i // n for i in range(n + 1)]


def _address(array: np.ndarray) -> int:
    place: int = array.__array_interface__["data"][0]
    return place
