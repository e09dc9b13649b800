"""Sums over one machine's ranks in shared memory."""

from __future__ import annotations

import math
import mmap
import os
import secrets
import weakref
from typing import Any, NamedTuple

import numpy as np

# The number of elements to add at a time, so that the blocks of all ranks fit into the cache.
_CHUNK = 1 << 15


class _Location(NamedTuple):
    """An array's location for other processes: process, file and size in bytes."""

    process: int
    file: int
    size: int


class SharedMemory:
    """Arrays summed in place by the ranks of one machine, in the MPI communicator ``comm``.

    Each rank sums its part over all ranks, then copies the other parts. MPI alone would copy all
    data, and each rank would update all parameters; bench/studies/ranks.py compares both methods.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.size = comm.size
        # Maps an array's address to its location and to all ranks' memory for it.
        self._locations: dict[int, _Location] = {}
        self._mapped: dict[int, list[np.ndarray]] = {}
        self._shared: set[int] = set()  # Addresses of arrays returned by `share`.

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Allocate an array that is summed repeatedly."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        file = os.memfd_create("mlp_xp")
        os.ftruncate(file, n_bytes)
        array = np.frombuffer(mmap.mmap(file, n_bytes), dtype)
        address = _address(array)
        self._locations[address] = _Location(os.getpid(), file, n_bytes)
        weakref.finalize(array, self._release, address)
        return array.reshape(shape)

    def _release(self, address: int) -> None:
        os.close(self._locations.pop(address).file)
        self._mapped.pop(address, None)
        self._shared.discard(address)

    def location(self, array: np.ndarray) -> _Location:
        """Return the location of an array allocated by `empty`."""
        return self._locations[_address(array)]

    def share(self, array: np.ndarray) -> np.ndarray:
        """Copy the first rank's array to memory shared by all ranks; all ranks must call this."""
        location, shared = None, array
        if self._comm.rank == 0:
            shared = self.empty(array.shape, array.dtype)
            shared[...] = array
            location = self.location(shared)
        location = self._comm.bcast(location)
        if self._comm.rank:
            flat = _map(location, array.dtype)
            weakref.finalize(flat, self._shared.discard, _address(flat))
            shared = flat.reshape(array.shape)
        self._shared.add(_address(shared))
        self._comm.Barrier()  # Wait until all ranks have mapped the file; it can then be closed.
        return shared

    def is_shared(self, array: np.ndarray) -> bool:
        """Whether an array was returned by `share`."""
        return _address(array) in self._shared

    def part(self, size: int) -> slice:
        """Return this rank's part of a sum over an array with ``size`` elements."""
        return _part(size, self.size, self._comm.rank)

    def start_sum(self, array: np.ndarray) -> SharedSum | None:
        """Return the pending sum for an array allocated by `empty`, or None for other arrays."""
        address = _address(array)
        location = self._locations.get(address)
        if location is None or location.size != array.nbytes:
            return None
        if address not in self._mapped:
            locations = self._comm.allgather(location)
            self._mapped[address] = [_map(location, array.dtype) for location in locations]
        return SharedSum(self._mapped[address], self._comm)


class SharedSum:
    """A pending sum of an array over all ranks on this machine."""

    def __init__(self, parts: list[np.ndarray], comm: Any) -> None:
        self._parts, self._comm = parts, comm

    def sum_part(self) -> None:
        """Sum this rank's part, after all ranks have written their arrays."""
        rank, size = self._comm.rank, self._comm.size
        own = _part(self._parts[rank].size, size, rank)
        for start in range(own.start, own.stop, _CHUNK):
            chunk = slice(start, min(start + _CHUNK, own.stop))
            for other in range(size):
                if other != rank:
                    self._parts[rank][chunk] += self._parts[other][chunk]

    def __call__(self) -> None:
        """Wait for the sum of the whole array."""
        self._comm.Barrier()  # Wait until all ranks have written their arrays.
        self.sum_part()
        self._comm.Barrier()  # Wait until all parts are summed.
        mine = self._parts[self._comm.rank]
        for rank, theirs in enumerate(self._parts):
            part = _part(mine.size, self._comm.size, rank)
            mine[part] = theirs[part]
        # Wait until all ranks have read this rank's part, which may then be overwritten.
        self._comm.Barrier()


def shared_memory(mpi: Any, comm: Any) -> SharedMemory | None:
    """Return the memory shared by all ranks of a communicator, or None if there is none."""
    if comm.size == 1 or comm.Split_type(mpi.COMM_TYPE_SHARED).size < comm.size:
        return None
    shared, token = SharedMemory(comm), comm.bcast(secrets.randbits(32))
    try:
        probe = shared.empty((1,), np.float64)
        probe[:] = token
        location = shared.location(probe)
    except (AttributeError, OSError):  # Unsupported by this system.
        location = None
    locations = comm.allgather(location)
    try:
        works = None not in locations and all(_map(at, np.float64)[0] == token for at in locations)
    except OSError:  # The ranks run in containers that hide each other's processes.
        works = False
    return shared if comm.allreduce(works, op=mpi.LAND) else None


def _map(location: _Location, dtype: Any) -> np.ndarray:
    """Map another process's array into this process."""
    file = os.open(f"/proc/{location.process}/fd/{location.file}", os.O_RDWR)
    try:
        return np.frombuffer(mmap.mmap(file, location.size), dtype)
    finally:
        os.close(file)


def _part(size: int, n_ranks: int, rank: int) -> slice:
    """Return a rank's part of a sum over an array with ``size`` elements."""
    return slice(size * rank // n_ranks, size * (rank + 1) // n_ranks)


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
