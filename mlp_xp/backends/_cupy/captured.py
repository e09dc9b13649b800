"""CuPy's captures, for `mlp_xp.backends._cuda.captured`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cupy

from mlp_xp.backends._cuda.captured import Graphs, Streams
from mlp_xp.backends._cupy.kernels.rendering import kernel


def _create_stream(device: int) -> tuple[Any, Any]:
    """Return a stream, and an event that orders it with the caller's stream.

    The stream and the default stream do not wait for each other, which would break a capture.
    """
    return cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event(disable_timing=True)


_streams = Streams(_create_stream)


class CupyGraphs(Graphs):
    """The graphs of a `cupy.cuda.Device`."""

    @contextlib.contextmanager
    def ordered(self) -> Iterator[None]:
        with self.device:
            caller = cupy.cuda.get_current_stream()
            stream, event = _streams.on(self.device.id)
            stream.wait_event(caller.record(event))
            try:
                with stream:
                    yield
            finally:
                caller.wait_event(stream.record(event))

    def new_pool(self) -> Any:
        # Free the memory of earlier steps; otherwise the graphs' pool cannot use it.
        cupy.get_default_memory_pool().free_all_blocks()
        return _GraphMemory(self.device)

    def capture(self, run: Callable[[], None], pool: Any) -> Callable[[], None]:
        stream = cupy.cuda.get_current_stream()
        with cupy.cuda.using_allocator(pool.malloc):
            stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
            try:
                run()
            except BaseException:
                with contextlib.suppress(Exception):  # The capture is already invalid.
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        launch: Callable[[], None] = graph.launch  # On this thread's current stream.
        return launch

    def take(self, pairs: Iterable[tuple[Any, Any]], position: Any) -> None:
        for all_steps, few in pairs:
            _take_kernel()(all_steps, position, few.size // few.shape[0], few)

    def memory(self, array: Any) -> int:
        return id(array.data.mem)


class _GraphMemory:
    """A memory pool that frees all memory, but only after its graphs are released.

    If memory runs short, CuPy's pool frees blocks that no array uses even though graphs write to
    them, and it never frees blocks when the pool is dropped (CuPy 14.2, `SingleDeviceMemoryPool`).
    """

    def __init__(self, device: Any) -> None:
        self._device, self._kept = device, list[Any]()
        kept = self._kept  # Not a method, since the pool would keep this object alive.

        def allocate(size: int) -> Any:
            kept.append(cupy.cuda.Memory(size))
            return cupy.cuda.MemoryPointer(kept[-1], 0)

        self._pool = cupy.cuda.MemoryPool(allocate)
        self.malloc = self._pool.malloc

    def __del__(self) -> None:
        with contextlib.suppress(Exception), self._device:  # At exit CUDA may already be gone.
            self._kept.clear()
            self._pool.free_all_blocks()


@kernel()
def _take_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "raw T all_steps, raw int64 position, int64 size",
        "T few",
        "few = all_steps[position[0] * size + i];",
        "mlp_xp_take_steps",
    )
