"""Devices, streams, events, graphs and memory of the stand-in, with the names of `cupy.cuda`."""

# ruff: noqa: F401 - a namespace
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from cupy.cuda import device, graph, memory, pinned_memory, runtime, stream
from cupy.cuda.device import Device, get_device_id
from cupy.cuda.graph import Graph
from cupy.cuda.memory import (
    BaseMemory,
    Memory,
    MemoryPointer,
    MemoryPool,
    UnownedMemory,
    alloc,
    get_allocator,
    set_allocator,
)
from cupy.cuda.pinned_memory import (
    PinnedMemory,
    PinnedMemoryPointer,
    PinnedMemoryPool,
    alloc_pinned_memory,
    set_pinned_memory_allocator,
)
from cupy.cuda.stream import Event, ExternalStream, Stream, get_current_stream, get_elapsed_time


def is_available() -> bool:
    return runtime.getDeviceCount() > 0


def get_local_runtime_version() -> int:
    return runtime.runtimeGetVersion()


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> Iterator[None]:
    previous = memory._get_thread_local_allocator()
    memory._set_thread_local_allocator(memory._malloc if allocator is None else allocator)
    try:
        yield
    finally:
        memory._set_thread_local_allocator(previous)
