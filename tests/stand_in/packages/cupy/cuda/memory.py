"""Memory of the device, and pools that hand it out again."""

from __future__ import annotations

import bisect
import ctypes
import operator
import threading
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from cupy import _errors, _launch, _memory
from cupy._errors import CUDARuntimeError
from cupy._memory import Block
from cupy.cuda import device, pinned_memory, runtime

_NO_SYNCHRONOUS = "the current stream is capturing, so synchronous API calls are disallowed"


class OutOfMemoryError(MemoryError):
    """The device has no such memory left."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        self.args = size, total, limit

    def __str__(self) -> str:
        size, total, limit = self.args
        reached = f", limit set to: {limit:,} bytes" if limit else ""
        return (
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes{reached})."
        )


class BaseMemory(_memory.Memory):
    """What owns memory of a device."""

    @property
    def device(self) -> device.Device:
        return device.Device(self.device_id)


class Memory(BaseMemory):
    """Memory from the system; when nobody holds it any more, the system has it again."""

    def __init__(self, size: int) -> None:
        self.size = size
        capture = _launch.current_queue().capture
        if capture is not None and not capture.is_relaxed:
            _launch.fail_capture(capture)
        if size > runtime.memGetInfo()[0]:
            free, total = runtime.memGetInfo()
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


class UnownedMemory(BaseMemory):
    """Memory that somebody else owns."""

    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1) -> None:
        block = _memory.block_at(ptr)
        if block is None:
            raise CUDARuntimeError(_errors.INVALID_VALUE)
        self.size, self.block = size, block
        self._ptr, self._owner = ptr, owner

    @property
    def ptr(self) -> int:
        return self._ptr


@cache
def _empty_block(device: int) -> Block:
    return Block(_memory.UNIT, device)


def _grant(block: Block) -> None:
    """Record a new owner; one outside of any capture must not meet a graph that writes there."""
    block.grant += 1
    if _launch.current_queue().capture is None:
        block.outsider = block.grant


def _spoil(block: Block) -> None:
    """Fill freed memory with garbage, unless a copy is still to use it, as CUDA allows."""
    if not block.n_pending:
        block.bytes.fill(_memory.GARBAGE)


class MemoryPointer:
    """A place in memory of the device."""

    def __init__(self, mem: _memory.Memory, offset: int) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset
        self.device_id = mem.device_id

    def __int__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"<MemoryPointer 0x{self.ptr:x} device={self.device_id} mem={self.mem!r}>"

    @property
    def device(self) -> device.Device:
        return device.Device(self.device_id)

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    __radd__ = __add__

    def __sub__(self, offset: int) -> MemoryPointer:
        return self + -offset

    def _bytes(self, size: int) -> np.ndarray:
        start = self.ptr - self.mem.block.address
        return self.mem.block.bytes[start : start + size]

    def copy_from_device(self, src: MemoryPointer, size: int) -> None:
        _launch.check_not_capturing(_NO_SYNCHRONOUS, RuntimeError)
        self.copy_from_device_async(src, size, _null())
        _launch.synchronize(_launch.queue_at(_launch.LEGACY))

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        if size > 0:
            target, source = self._bytes(size), src._bytes(size)
            _launch.launch(
                "copy between devices" if src.device_id != self.device_id else "copy",
                lambda: np.copyto(target, source),
                reads=[src.mem],
                writes=[self.mem],
                stream=_queue(stream),
                is_copy=True,
                between_devices=True,
            )

    def copy_from_host(self, mem: int | ctypes.c_void_p, size: int) -> None:
        _launch.check_not_capturing(_NO_SYNCHRONOUS, RuntimeError)
        self.copy_from_host_async(mem, size, _null())
        _launch.synchronize(_launch.queue_at(_launch.LEGACY))

    def copy_from_host_async(
        self, mem: int | ctypes.c_void_p, size: int, stream: Any = None
    ) -> None:
        """Copy from the host: late from pinned memory, which must not change until then."""
        queue = _queue(stream)
        _refuse_in_capture(queue, "H2D")
        if size > 0:
            source, is_pinned = pinned_memory._view(_address(mem), size)
            before, target = source.copy(), self._bytes(size)

            def run() -> None:
                if is_pinned and not np.array_equal(before, source):
                    raise _errors.RaceError("pinned memory was changed while it was being copied")
                np.copyto(target, before)

            _launch.launch(
                "copy from host",
                run,
                writes=[self.mem],
                stream=queue,
                is_copy=True,
                between_devices=True,
            )

    def copy_to_host(self, mem: int | ctypes.c_void_p, size: int) -> None:
        _launch.check_not_capturing(_NO_SYNCHRONOUS, RuntimeError)
        self.copy_to_host_async(mem, size, _null())
        _launch.synchronize(_launch.queue_at(_launch.LEGACY))

    def copy_to_host_async(self, mem: int | ctypes.c_void_p, size: int, stream: Any = None) -> None:
        """Copy to the host: late to pinned memory, which is garbage until then."""
        queue = _queue(stream)
        _refuse_in_capture(queue, "D2H")
        if size > 0:
            target, is_pinned = pinned_memory._view(_address(mem), size)
            source = self._bytes(size)
            target.fill(_memory.GARBAGE)
            _launch.launch(
                "copy to host",
                lambda: np.copyto(target, source),
                reads=[self.mem],
                stream=queue,
                is_copy=True,
                between_devices=True,
            )
            if not is_pinned:  # The driver returns when the copy is done.
                _launch.synchronize(queue)

    def memset(self, value: int, size: int) -> None:
        _launch.check_not_capturing(_NO_SYNCHRONOUS, RuntimeError)
        self.memset_async(value, size, _null())

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        if size > 0:
            target = self._bytes(size)
            _launch.launch(
                "memset",
                lambda: target.fill(value),
                writes=[self.mem],
                stream=_queue(stream),
            )


def _address(mem: int | ctypes.c_void_p) -> int:
    return mem if isinstance(mem, int) else int(mem.value or 0)


def _queue(stream: Any) -> _launch.Queue:
    return _launch.current_queue() if stream is None else stream._stream


def _null() -> Any:
    from cupy.cuda.stream import Stream

    return Stream.null


def _refuse_in_capture(queue: _launch.Queue, direction: str) -> None:
    if queue.capture is not None:
        raise RuntimeError(
            f"the current stream is capturing, so {direction} transfers are disallowed"
        )


class PooledMemory(BaseMemory):
    """Memory that goes back to its pool, full of garbage."""

    def __init__(self, chunk: Memory, pool: weakref.ref[_Arenas], arena: list[Memory]) -> None:
        self._chunk, self.pool, self._arena = chunk, pool, arena
        self.block, self.size = chunk.block, chunk.size

    def free(self) -> None:
        self.__del__()

    # The default: modules are empty when the interpreter ends.
    def __del__(self, free_later: Any = _memory.free_later) -> None:
        chunk, pool, arena = self._chunk, self.pool, self._arena
        if chunk is None:
            return
        self._chunk = None  # type: ignore[assignment]

        def put_back() -> None:
            _spoil(chunk.block)
            owner = pool()
            if owner is not None:
                owner.used.remove(chunk)
                bisect.insort(arena, chunk, key=_size)

        free_later(put_back)


_size = operator.attrgetter("size")


class _Arenas:
    """Memory of one device: what is free by stream, the smallest first, and what is in use.

    What is in use is held too: the collector of cycles would finalize it with its user.
    """

    def __init__(self) -> None:
        self.free: dict[int, list[Memory]] = {}
        self.used: set[Memory] = set()


class MemoryPool:
    """A pool: it hands freed memory of a stream out again to the same stream, without a wait."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None) -> None:
        self._allocator = _malloc if allocator is None else allocator
        self._arenas = [_Arenas() for _ in range(_launch.N_DEVICES)]
        self._limit = 0

    def malloc(self, size: int) -> MemoryPointer:
        if size == 0:
            return MemoryPointer(Memory(0), 0)
        size = _memory.rounded(size)
        with _memory.lock:
            _memory.commit_freed()
            here = self._arenas[runtime.getDevice()]
            arena = here.free.setdefault(_launch.current_queue().pointer, [])
            # The smallest that is large enough, and of these the last one freed.
            place = bisect.bisect_left(arena, size, key=_size)
            if place < len(arena):
                chunk: Any = arena.pop(bisect.bisect(arena, arena[place].size, key=_size) - 1)
                _spoil(chunk.block)
                _grant(chunk.block)
            else:
                self._check_limit(size)
                chunk = self._allocator(size).mem
            here.used.add(chunk)
            return MemoryPointer(PooledMemory(chunk, weakref.ref(here), arena), 0)

    def _check_limit(self, size: int) -> None:
        if self._limit and self.total_bytes() + size > self._limit:
            raise OutOfMemoryError(size, self.total_bytes(), self._limit)

    def free_all_blocks(self, stream: Any = None) -> None:
        with _memory.lock:
            _memory.commit_freed()
            free = self._arenas[runtime.getDevice()].free
            for pointer in list(free) if stream is None else [stream.ptr]:
                free.get(pointer, []).clear()
        _memory.commit_freed()

    def free_all_free(self) -> None:
        self.free_all_blocks()

    def n_free_blocks(self) -> int:
        return len(self._free_chunks())

    def used_bytes(self) -> int:
        _memory.commit_freed()
        return sum(chunk.size for chunk in self._arenas[runtime.getDevice()].used)

    def free_bytes(self) -> int:
        return sum(chunk.size for chunk in self._free_chunks())

    def total_bytes(self) -> int:
        return self.used_bytes() + self.free_bytes()

    def _free_chunks(self) -> list[Memory]:
        _memory.commit_freed()
        arenas = self._arenas[runtime.getDevice()].free.values()
        return [chunk for arena in arenas for chunk in arena]

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        if fraction is not None:
            size = int(fraction * runtime.memGetInfo()[1])
        self._limit = size or 0

    def get_limit(self) -> int:
        return self._limit


def _malloc(size: int) -> MemoryPointer:
    return MemoryPointer(Memory(size), 0)


class _Allocator(threading.local):
    def __init__(self) -> None:
        self.allocator: Callable[[int], MemoryPointer] | None = None


_thread_local = _Allocator()
_default_pool = MemoryPool()
_current_allocator: Callable[[int], MemoryPointer] = _default_pool.malloc


def _get_thread_local_allocator() -> Callable[[int], MemoryPointer] | None:
    return _thread_local.allocator


def _set_thread_local_allocator(allocator: Callable[[int], MemoryPointer] | None) -> None:
    _thread_local.allocator = allocator


def get_allocator() -> Callable[[int], MemoryPointer]:
    return _thread_local.allocator or _current_allocator


def set_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> None:
    global _current_allocator
    if _thread_local.allocator is not None:
        raise ValueError(
            "Can't change the global allocator inside `using_allocator` context manager"
        )
    _current_allocator = _malloc if allocator is None else allocator


def alloc(size: int) -> MemoryPointer:
    return get_allocator()(size)
