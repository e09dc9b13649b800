"""Memory of a device: blocks at real addresses, which a pool hands out again full of garbage."""

from __future__ import annotations

import bisect
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

GARBAGE = 0xFF  # NaN in every floating dtype, -1 in integers.
UNIT = 512

lock = threading.RLock()
_addresses: list[int] = []
_blocks: list[Block] = []
_freed: deque[Callable[[], None]] = deque()


class Block:
    """An allocation of the device's memory, with the last accesses of each queue.

    `grant` counts the owners that it has had: 0 for none, and `outsider` is the last of them that
    came outside of any capture.
    """

    def __init__(self, n_bytes: int, device: int) -> None:
        self.device = device
        self.n_bytes = n_bytes
        room = np.empty(n_bytes + UNIT, np.uint8)
        start = -room.ctypes.data % UNIT
        self.bytes = room[start : start + n_bytes]
        self.address = int(self.bytes.ctypes.data)
        self.bytes.fill(GARBAGE)
        self.written: tuple[int, int] | None = None  # Queue, tick.
        self.read: dict[int, int] = {}
        self.n_pending = 0  # Queued copies that still use it.
        self.is_released = False
        self.grant = 0
        self.outsider = 0
        with lock:
            place = bisect.bisect(_addresses, self.address)
            _addresses.insert(place, self.address)
            _blocks.insert(place, self)

    def release(self) -> None:
        """Release the memory to the system; an access from now on is an error."""
        with lock:
            self.is_released = True
            place = bisect.bisect_left(_addresses, self.address)
            del _addresses[place], _blocks[place]


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
    """Return the block that holds an address."""
    with lock:
        place = bisect.bisect(_addresses, address) - 1
        if place < 0 or address >= _addresses[place] + _blocks[place].n_bytes:
            return None
        return _blocks[place]


def free_later(free: Callable[[], None], append: Callable[..., None] = _freed.append) -> None:
    """Free when nothing else is going on: a finalizer may run at any time."""
    append(free)


def commit_freed() -> None:
    """Free what finalizers have left."""
    with lock:
        while _freed:
            _freed.popleft()()


def rounded(n_bytes: int) -> int:
    """Return a size as pools round it."""
    return -(-max(n_bytes, 1) // UNIT) * UNIT


def bytes_of_device(device: int) -> int:
    """Return how much memory of a device has been taken from the system."""
    with lock:
        commit_freed()
        return sum(block.n_bytes for block in _blocks if block.device == device)
