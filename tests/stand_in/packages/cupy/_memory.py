"""Memory of a device: blocks at real addresses, which a pool hands out again full of garbage."""

from __future__ import annotations

import bisect
import copy
import ctypes
import operator
import os
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

GARBAGE = 0xFF  # NaN in every floating dtype, -1 in integers.
UNIT = 512
IS_SANITIZED = "STAND_IN_SANITIZE" in os.environ

lock = threading.RLock()
_addresses: list[int] = []
_blocks: list[Block] = []
_freed: deque[Callable[[], None]] = deque()


class Part:
    """A part of memory that no pool has cut so far, with the last accesses of each queue.

    `outsider` is the number of the last grant to an owner that came outside of any capture.
    """

    def __init__(self, stop: int) -> None:
        self.stop = stop
        self.written: tuple[int, int] | None = None  # Queue, tick.
        self.read: dict[int, int] = {}
        self.n_pending = 0  # Queued copies that still use it.
        self.outsider = 0

    def cut(self, place: int) -> Part:
        """Return what follows a place, and end there."""
        rest = copy.copy(self)
        rest.read, self.stop = dict(self.read), place
        return rest


class Block:
    """An allocation of the device's memory, or a piece of one, between two offsets.

    The pieces of an allocation share its bytes and its parts.
    """

    n_grants = 0  # Of all blocks to their owners.

    def __init__(self, n_bytes: int, device: int, whole: Block | None = None, start: int = 0):
        self.device, self.n_bytes, self._start = device, n_bytes, start
        if whole is None:
            room = np.empty(n_bytes + UNIT, np.uint8)
            offset = -room.ctypes.data % UNIT
            self._all = room[offset : offset + n_bytes]
            self._all.fill(GARBAGE)
            self._parts = [Part(n_bytes)]
            self._released: list[bool] = []
        else:
            self._all, self._parts, self._released = whole._all, whole._parts, whole._released
        self.bytes = self._all[start : start + n_bytes]
        self.address = int(self.bytes.ctypes.data)
        with lock:
            place = bisect.bisect(_addresses, self.address)
            _addresses.insert(place, self.address)
            _blocks.insert(place, self)

    @property
    def is_released(self) -> bool:
        return bool(self._released)

    @property
    def parts(self) -> list[Part]:
        """Its parts now: pools may cut them later."""
        if len(self._parts) == 1:
            return self._parts
        first = bisect.bisect(self._parts, self._start, key=_stop)
        last = bisect.bisect_left(self._parts, self._start + self.n_bytes, key=_stop)
        return self._parts[first : last + 1]

    @property
    def n_pending(self) -> int:
        return max(part.n_pending for part in self.parts)

    def grant(self, *, is_outside: bool) -> None:
        """Record a new owner; outside of any capture it must not meet a graph that writes there."""
        Block.n_grants += 1
        for part in self.parts if is_outside else ():
            part.outsider = Block.n_grants

    def split(self, n_bytes: int) -> tuple[Block, Block, dict[Part, Part]]:
        """Return two pieces instead of this one, and a new part by the one that it was cut from."""
        place, new = self._start + n_bytes, {}
        i = bisect.bisect_left(self._parts, place, key=_stop)
        if self._parts[i].stop != place:
            new = {self._parts[i]: self._parts[i].cut(place)}
            self._parts.insert(i + 1, new[self._parts[i]])
        self._forget()
        rest = Block(self.n_bytes - n_bytes, self.device, self, place)
        return Block(n_bytes, self.device, self, self._start), rest, new

    def merge(self, following: Block) -> Block:
        """Return one piece instead of this one and the next."""
        self._forget()
        following._forget()
        return Block(self.n_bytes + following.n_bytes, self.device, self, self._start)

    def _forget(self) -> None:
        place = bisect.bisect_left(_addresses, self.address)
        del _addresses[place], _blocks[place]

    def release(self) -> None:
        """Release the memory to the system; an access from now on is an error."""
        with lock:
            self._released.append(True)
            self._forget()


_stop = operator.attrgetter("stop")


def guard(block: Block, n_bytes: int) -> None:
    """Make access after the first bytes an error, where addresses are sanitized."""
    if IS_SANITIZED:
        runtime, end = ctypes.CDLL(None), block.address + block.n_bytes
        for name, start in (("unpoison", block.address), ("poison", block.address + n_bytes)):
            change = runtime[f"__asan_{name}_memory_region"]
            change(ctypes.c_void_p(start), ctypes.c_size_t(end - start))


class Memory:
    """What owns a block; the arrays that use it hold it."""

    block: Block
    size: int

    @property
    def device_id(self) -> int:
        return self.block.device

    @property
    def ptr(self) -> int:
        return self.block.address

    def __int__(self) -> int:
        return self.ptr


def block_at(address: int) -> Block | None:
    with lock:
        place = bisect.bisect(_addresses, address) - 1
        if place < 0 or address >= _addresses[place] + _blocks[place].n_bytes:
            return None
        return _blocks[place]


def free_later(free: Callable[[], None], append: Callable[..., None] = _freed.append) -> None:
    """Free when nothing else is going on: a finalizer may run at any time."""
    append(free)


def commit_freed() -> None:
    with lock:
        while _freed:
            _freed.popleft()()


def rounded(n_bytes: int) -> int:
    return -(-max(n_bytes, 1) // UNIT) * UNIT


def bytes_of_device(device: int) -> int:
    with lock:
        commit_freed()
        return sum(block.n_bytes for block in _blocks if block.device == device)
