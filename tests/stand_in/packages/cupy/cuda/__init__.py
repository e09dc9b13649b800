"""Devices, streams, events, graphs and memory of the stand-in, with the names of `cupy.cuda`."""

# ruff: noqa: F401 - a namespace
import contextlib
from collections.abc import Callable, Iterator

from cupy.cuda import device, graph, memory, pinned_memory, runtime, stream
from cupy.cuda.device import Device
from cupy.cuda.graph import Graph
from cupy.cuda.memory import Memory, MemoryPointer, MemoryPool, alloc
from cupy.cuda.pinned_memory import PinnedMemoryPool, alloc_pinned_memory
from cupy.cuda.stream import Event, Stream, get_current_stream


def is_available() -> bool:
    return runtime.getDeviceCount() > 0


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer] | None = None) -> Iterator[None]:
    previous = memory._thread_local.allocator
    memory._thread_local.allocator = memory._malloc if allocator is None else allocator
    try:
        yield
    finally:
        memory._thread_local.allocator = previous
