"""Pinned memory of the host: NumPy arrays in it are known by their address."""

from __future__ import annotations

import bisect
import ctypes
from typing import Any

import numpy as np

from cupy import _launch, _memory

_addresses: list[int] = []
_rooms: list[np.ndarray] = []


class PinnedMemory:
    """Pinned memory from the system, which a pool keeps."""

    def __init__(self, size: int, flags: int = 0) -> None:
        _launch.refuse_allocation()
        self.size = size
        self._room = np.full(_memory.rounded(size), _memory.GARBAGE, np.uint8)
        self.ptr = int(self._room.ctypes.data)
        with _memory.lock:
            place = bisect.bisect(_addresses, self._room.ctypes.data)
            _addresses.insert(place, self._room.ctypes.data)
            _rooms.insert(place, self._room)


def _view(address: int, size: int) -> tuple[np.ndarray, bool]:
    """Return memory of the host, and whether it is pinned; it does not keep pinned memory."""
    with _memory.lock:
        place = bisect.bisect(_addresses, address) - 1
        if place >= 0 and address + size <= _addresses[place] + _rooms[place].nbytes:
            start = address - _addresses[place]
            return _rooms[place][start : start + size], True
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8))
    return np.ctypeslib.as_array(pointer, shape=(size,)), False


class PinnedMemoryPointer(np.ndarray):
    """A place in pinned memory; an array of bytes, so that NumPy's arrays take it as a buffer."""

    def __new__(cls, mem: PinnedMemory, offset: int) -> PinnedMemoryPointer:
        # Over a buffer of ctypes: NumPy would drop the pointer from between two plain arrays.
        n_bytes = max(mem.size - offset, 0)
        room = (ctypes.c_uint8 * n_bytes).from_buffer(mem._room, offset)
        pointer = super().__new__(cls, (n_bytes,), np.uint8, room)
        pointer.mem, pointer.ptr = mem, mem.ptr + offset
        return pointer


class PooledPinnedMemory(PinnedMemory):
    """Pinned memory that goes back to its pool, full of garbage."""

    def __init__(self, mem: PinnedMemory, pool: dict[int, list[PinnedMemory]]) -> None:
        self._mem, self._pool = mem, pool
        self.ptr, self.size, self._room = mem.ptr, mem.size, mem._room

    # The default: modules are empty when the interpreter ends.
    def __del__(self, free_later: Any = _memory.free_later) -> None:
        mem, free = self._mem, self._pool
        free_later(lambda: _put_back(mem, free))


def _put_back(mem: PinnedMemory, free: dict[int, list[PinnedMemory]]) -> None:
    mem._room.fill(_memory.GARBAGE)
    free.setdefault(mem.size, []).append(mem)


class PinnedMemoryPool:
    """A pool of pinned memory: it hands out again what was freed, without a wait."""

    def __init__(self) -> None:
        self._free: dict[int, list[PinnedMemory]] = {}

    def malloc(self, size: int) -> PinnedMemoryPointer:
        size = 1 << (_memory.rounded(size) - 1).bit_length()
        with _memory.lock:
            _memory.commit_freed()
            free = self._free.get(size)
            mem = free.pop() if free else PinnedMemory(size)
        return PinnedMemoryPointer(PooledPinnedMemory(mem, self._free), 0)


_default_pool = PinnedMemoryPool()


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    return _default_pool.malloc(size)
