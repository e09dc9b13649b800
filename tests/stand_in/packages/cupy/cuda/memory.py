"""Memory of the device, and pools that hand it out again."""

from __future__ import annotations

import bisect
import operator
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from cupy import _errors, _launch, _memory
from cupy._memory import Block
from cupy.cuda import device, pinned_memory, runtime


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes ({total:,} of {limit:,} used).")


class Memory(_memory.Memory):
    """Memory from the system; when nobody holds it any more, the system has it again."""

    def __init__(self, size: int) -> None:
        self.size = size
        _launch.refuse_allocation()
        free, total = runtime.memGetInfo()
        if size > free:
            raise OutOfMemoryError(size, total - free)
        if size == 0:
            self.block = _empty_block(runtime.getDevice())
            return
        self.block = Block(_memory.rounded(size), runtime.getDevice())
        _grant(self.block)

    # The default: modules are empty when the interpreter ends.
    def __del__(self, free_later: Any = _memory.free_later, release: Any = _launch.release) -> None:
        block = getattr(self, "block", None)
        if block is not None and self.size:
            free_later(lambda: release(block))


@cache
def _empty_block(device: int) -> Block:
    return Block(_memory.UNIT, device)


def _grant(block: Block) -> None:
    block.grant(is_outside=_launch.current_queue().capture is None)


def _spoil(block: Block) -> None:
    """Fill freed memory with garbage, unless a copy is still to use it, as CUDA allows."""
    if not block.n_pending:
        block.bytes.fill(_memory.GARBAGE)


class MemoryPointer:
    def __init__(self, mem: _memory.Memory, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset
        self.device_id = mem.device_id

    def __int__(self) -> int:
        return self.ptr

    @property
    def device(self) -> device.Device:
        return device.Device(self.device_id)

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    def _bytes(self, size: int) -> np.ndarray:
        start = self.ptr - self.mem.block.address
        return self.mem.block.bytes[start : start + size]

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        if size > 0:
            target, source = self._bytes(size), src._bytes(size)
            name = "copy between devices" if src.device_id != self.device_id else "copy"
            _copy(name, lambda: np.copyto(target, source), stream, [src.mem], [self.mem])

    def copy_from_host_async(self, mem: int, size: int, stream: Any = None) -> None:
        """Copy from the host: late from pinned memory, which must not change until then."""
        _refuse_in_capture(stream, "H2D")
        if size > 0:
            source, is_pinned = pinned_memory._view(mem, size)
            before, target = source.copy(), self._bytes(size)

            def run() -> None:
                if is_pinned and not np.array_equal(before, source):
                    raise _errors.RaceError("pinned memory was changed while it was being copied")
                np.copyto(target, before)

            _copy("copy from host", run, stream, [], [self.mem])

    def copy_to_host_async(self, mem: int, size: int, stream: Any = None) -> None:
        """Copy to the host: late to pinned memory, which is garbage until then."""
        _refuse_in_capture(stream, "D2H")
        if size > 0:
            target, is_pinned = pinned_memory._view(mem, size)
            source = self._bytes(size)
            target.fill(_memory.GARBAGE)
            _copy("copy to host", lambda: np.copyto(target, source), stream, [self.mem], [])
            if not is_pinned:  # The driver returns when the copy is done.
                _launch.synchronize(_queue(stream))


def _queue(stream: Any) -> _launch.Queue:
    return _launch.current_queue() if stream is None else stream._stream


def _copy(name: str, run: Callable[[], None], stream: Any, reads: Any, writes: Any) -> None:
    _launch.launch(name, run, reads=reads, writes=writes, stream=_queue(stream), is_copy=True)


def _refuse_in_capture(stream: Any, direction: str) -> None:
    if _queue(stream).capture is not None:
        raise RuntimeError(f"{direction} transfers are disallowed in a stream that is capturing")


class _Chunk:
    """A piece of memory from the system, between its neighbors, and the list where it is free."""

    def __init__(self, mem: Memory, block: Block, arena: list[_Chunk]) -> None:
        self.mem, self.block, self.arena = mem, block, arena
        self.before: _Chunk | None = None
        self.next: _Chunk | None = None
        self.is_free = False

    @property
    def size(self) -> int:
        return self.block.n_bytes

    def take(self, size: int) -> None:
        """Leave the list; what follows the first bytes stays as another chunk."""
        self._leave()
        if size == self.size:
            return
        self.block, rest, cut = self.block.split(size)
        for capture in filter(None, (queue.capture for queue in _launch.queues())):
            for part, new in cut.items():
                if part in capture.accesses:
                    written, read = capture.accesses[part]
                    capture.accesses[new] = written, dict(read)
        following = _Chunk(self.mem, rest, self.arena)
        following._link(self.next)
        self._link(following)
        following._enter()

    def put_back(self) -> None:
        """Enter the list, as one with the neighbors that are there."""
        _memory.guard(self.block, self.size)
        _spoil(self.block)
        chunk = self
        if self.next is not None and self.next.is_free:
            self.next._leave()
            self._join(self.next)
        if self.before is not None and self.before.is_free:
            chunk = self.before
            chunk._leave()
            chunk._join(self)
        chunk._enter()

    def _enter(self) -> None:
        self.is_free = True
        bisect.insort(self.arena, self, key=_size)

    def _leave(self) -> None:
        self.is_free = False
        self.arena.remove(self)

    def _join(self, following: _Chunk) -> None:
        self.block = self.block.merge(following.block)
        self._link(following.next)

    def _link(self, following: _Chunk | None) -> None:
        self.next = following
        if following is not None:
            following.before = self


class PooledMemory(_memory.Memory):
    """Memory that goes back to its pool, full of garbage."""

    def __init__(self, chunk: _Chunk, used: set[_Chunk]) -> None:
        self._chunk, self._used = chunk, used
        self.block, self.size = chunk.block, chunk.size

    # The default: modules are empty when the interpreter ends.
    def __del__(self, free_later: Any = _memory.free_later) -> None:
        chunk, used = self._chunk, self._used

        def put_back() -> None:
            used.remove(chunk)
            chunk.put_back()

        free_later(put_back)


_size = operator.attrgetter("size")


class _Arenas:
    """Memory of one device: what is free by stream, the smallest first, and what is in use.

    What is in use is held too: the collector of cycles would finalize it with its user.
    """

    def __init__(self) -> None:
        self.free: dict[int, list[_Chunk]] = {}
        self.used: set[_Chunk] = set()


def _malloc(size: int) -> MemoryPointer:
    return MemoryPointer(Memory(size), 0)


_all_arenas: list[_Arenas] = []  # Since CuPy 14.1 a pool that is dropped frees nothing.


class MemoryPool:
    """A pool: it hands freed memory of a stream out again to the same stream, without a wait.

    It splits what is too large, and merges the pieces when they are free.
    """

    def __init__(self, allocator: Callable[[int], MemoryPointer] = _malloc) -> None:
        self._arenas = [_Arenas() for _ in range(_launch.N_DEVICES)]
        _all_arenas.extend(self._arenas)
        self._allocator = allocator

    def malloc(self, size: int) -> MemoryPointer:
        if size == 0:
            return MemoryPointer(Memory(0), 0)
        n_bytes, size = size, _memory.rounded(size)
        with _memory.lock:
            _memory.commit_freed()
            here = self._arenas[runtime.getDevice()]
            arena = here.free.setdefault(_launch.current_queue().pointer, [])
            # The smallest that is large enough, and of these the last one freed.
            place = bisect.bisect_left(arena, size, key=_size)
            if place < len(arena):
                chunk = arena[bisect.bisect(arena, arena[place].size, key=_size) - 1]
                chunk.take(size)
                _spoil(chunk.block)
                _grant(chunk.block)
            else:
                mem = self._from_system(size)
                chunk = _Chunk(mem, mem.block, arena)
            if _launch.current_queue().capture is None:  # Graphs use what others had before.
                _memory.guard(chunk.block, n_bytes)
            here.used.add(chunk)
            return MemoryPointer(PooledMemory(chunk, here.used), 0)

    def _from_system(self, size: int) -> Memory:
        """Return new memory; where it is short, free what is not split, as CuPy does.

        It does so whatever graphs still write there.
        """
        for is_last in (False, True):
            try:
                return self._allocator(size).mem
            except OutOfMemoryError:
                if is_last:
                    raise
                self.free_all_blocks()
        raise AssertionError

    def free_all_blocks(self, stream: Any = None) -> None:
        with _memory.lock:
            _memory.commit_freed()
            free = self._arenas[runtime.getDevice()].free
            for pointer in list(free) if stream is None else [stream.ptr]:
                arena = free.get(pointer, [])
                arena[:] = [chunk for chunk in arena if chunk.before or chunk.next]
        _memory.commit_freed()

    def used_bytes(self) -> int:
        _memory.commit_freed()
        return sum(chunk.size for chunk in self._arenas[runtime.getDevice()].used)

    def free_bytes(self) -> int:
        _memory.commit_freed()
        arenas = self._arenas[runtime.getDevice()].free.values()
        return sum(chunk.size for arena in arenas for chunk in arena)

    def total_bytes(self) -> int:
        return self.used_bytes() + self.free_bytes()


class _Allocator(threading.local):
    allocator: Callable[[int], MemoryPointer] | None = None


_thread_local = _Allocator()
_default_pool = MemoryPool()
_default_allocator = _default_pool.malloc


def alloc(size: int) -> MemoryPointer:
    return (_thread_local.allocator or _default_allocator)(size)
