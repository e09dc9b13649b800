"""Sums over the ranks of one machine in shared memory."""

from __future__ import annotations

import math
import mmap
import os
import secrets
import weakref
from typing import Any, NamedTuple

import numpy as np

# The number of array elements to add at a time, so that the blocks of all ranks fit into the cache.
_CHUNK = 1 << 15


class _Location(NamedTuple):
    """The location of an array for other processes: the process, file, offset and size in bytes."""

    process: int
    file: int
    offset: int
    size: int


class SharedMemory:
    """Arrays that the ranks of a machine sum in place; each rank sums one part.

    Each rank adds the other ranks' numbers to its part, and then copies the other parts. Between
    machines, MPI sums each part over the ranks that have the same number on their machines.
    ``node`` contains the ranks of this machine, and ``others`` contains the ranks with this rank's
    number on all machines. MPI alone would copy all data, and each rank would update all
    parameters; bench/studies/ranks.py compares both ways.
    """

    def __init__(self, mpi: Any, node: Any, others: Any) -> None:
        self._mpi, self._node, self._others = mpi, node, others
        self.size = node.size
        # From an array's address to its location, and to the other ranks' memory for it.
        self._locations: dict[int, _Location] = {}
        self._mapped: dict[int, dict[tuple[int, int], list[np.ndarray]]] = {}
        self._shared: set[int] = set()  # Addresses of the arrays that `share` returned.

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return memory for an array that is summed repeatedly."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        file = os.memfd_create("mlp_xp")
        os.ftruncate(file, n_bytes)
        array = np.frombuffer(mmap.mmap(file, n_bytes), dtype)
        address = _address(array)
        self._locations[address] = _Location(os.getpid(), file, 0, n_bytes)
        weakref.finalize(array, self._release, address)
        return array.reshape(shape)

    def _release(self, address: int) -> None:
        os.close(self._locations.pop(address).file)
        self._mapped.pop(address, None)
        self._shared.discard(address)

    def share(self, array: np.ndarray) -> np.ndarray:
        """Copy the first rank's array to memory shared by all ranks; all ranks must call this."""
        location, shared = None, array
        if self._node.rank == 0:
            shared = self.empty(array.shape, array.dtype)
            shared[...] = array
            location = self._locations[_address(shared)]
        location = self._node.bcast(location)
        if self._node.rank:
            flat = _map(location, array.dtype, array.size)
            weakref.finalize(flat, self._shared.discard, _address(flat))
            shared = flat.reshape(array.shape)
        self._shared.add(_address(shared))
        self._node.Barrier()  # Wait until all ranks have mapped the file; it can then be closed.
        return shared

    def is_shared(self, array: np.ndarray) -> bool:
        """Whether an array was returned by `share`."""
        return _address(array) in self._shared

    def part(self, size: int) -> slice:
        """Return the part of an array of ``size`` numbers that this rank sums."""
        rank = self._node.rank
        return slice(*_bounds(size, self._node.size)[rank : rank + 2])

    def barrier(self) -> None:
        """Wait for all ranks of the machine."""
        self._node.Barrier()

    def sum_number(self, number: np.ndarray) -> None:
        """Sum a number over the machine's ranks in place; all machines get equal results."""
        numbers = np.empty(self._node.size, number.dtype)
        self._node.Allgather(number, numbers)
        number[...] = np.sum(numbers)

    def start_sum(self, array: np.ndarray) -> SharedSum | None:
        """Start to sum an array; return a function that waits for the sum.

        Return None on all ranks of the machine if the array is not shared.
        """
        root = array.base if isinstance(array.base, np.ndarray) else array
        known = self._mapped.get(_address(root), {})
        offset = _address(array) - _address(root)
        if (offset, array.size) in known:  # All ranks take the same branch.
            if self._others.size > 1:
                self._node.Barrier()
        else:
            own = self._locations.get(_address(root), _Location(0, 0, 0, 0))
            locations = np.asarray(self._node.allgather(own._replace(offset=offset)))
            if not locations[:, 0].all():
                return None
            others = np.delete(locations, self._node.rank, axis=0).tolist()
            known = self._mapped.setdefault(_address(root), {})
            known[offset, array.size] = [
                _map(_Location(*location), array.dtype, array.size) for location in others
            ]
        parts = list(known[offset, array.size])
        parts.insert(self._node.rank, array.reshape(-1))
        started = SharedSum(parts, self._mpi, self._node, self._others)
        if self._others.size > 1:  # Begin now, since other machines wait.
            started.begin()
        return started


class SharedSum:
    """An unfinished sum of an array over all ranks of this machine."""

    def __init__(self, parts: list[np.ndarray], mpi: Any, node: Any, others: Any) -> None:
        self._parts, self._mpi, self._node, self._others = parts, mpi, node, others
        self._bounds = _bounds(parts[0].size, node.size)
        self._request: Any = None
        self._has_begun = False

    def begin(self) -> None:
        """Sum this rank's part over the machine, then start to sum it over all machines."""
        rank = self._node.rank
        start, stop = self._bounds[rank : rank + 2]
        mine = self._parts[rank][start:stop]
        for first in range(0, mine.size, _CHUNK):
            chunk = mine[first : first + _CHUNK]
            for part in self._parts[:rank] + self._parts[rank + 1 :]:
                chunk += part[start + first : start + first + len(chunk)]
        if self._others.size > 1:
            self._request = self._others.Iallreduce(self._mpi.IN_PLACE, mine)
        self._has_begun = True

    def sum_part(self) -> None:
        """Sum this rank's part, after all ranks of the machine have written their parts."""
        if not self._has_begun:
            self.begin()
        if self._request is not None:
            self._request.Wait()

    def __call__(self) -> None:
        """Wait for the sum of the whole array."""
        self._node.Barrier()  # Wait until all ranks have written their parts.
        self.sum_part()
        self._node.Barrier()  # Wait until all parts are summed.
        rank = self._node.rank
        for i, part in enumerate(self._parts):
            if i != rank:
                span = slice(*self._bounds[i : i + 2])
                self._parts[rank][span] = part[span]
        # Wait until all ranks have read this rank's part, which may then be overwritten.
        self._node.Barrier()


def shared_memory(mpi: Any, comm: Any) -> SharedMemory | None:
    """Return the shared memory of a communicator's ranks, or None if the system has none."""
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
    except (AttributeError, OSError):  # This system has no shared memory for other processes.
        probe = np.zeros(node.size)
    try:
        wait = shared.start_sum(probe)
        works = wait is not None
    except OSError:  # The ranks run in containers that cannot see each other's processes.
        wait = None
    if not comm.allreduce(works, op=mpi.LAND):
        return None
    assert wait is not None
    wait()
    is_right = bool(np.all(probe == node.size * others.allreduce(token)))
    return shared if comm.allreduce(is_right, op=mpi.LAND) else None


def _map(location: _Location, dtype: Any, size: int) -> np.ndarray:
    """Map an array of another process into this process."""
    file = os.open(f"/proc/{location.process}/fd/{location.file}", os.O_RDWR)
    try:
        memory = mmap.mmap(file, location.size)
    finally:
        os.close(file)
    return np.frombuffer(memory, dtype, size, location.offset)


def _bounds(size: int, n: int) -> list[int]:
    return [size * i // n for i in range(n + 1)]


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
