"""CUDA graphs in CuPy, for `mlp_xp.backends._cuda.captured`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cupy

from mlp_xp.backends._cuda.captured import Graphs, Streams
from mlp_xp.backends._cupy.kernels.rendering import kernel


def _create_stream(device: int) -> tuple[Any, Any]:
    """Return a stream, and an event to order it with the caller's stream.

    The stream does not synchronize with the default stream, since that would invalidate a capture.
    """
    return cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event(disable_timing=True)


_streams = Streams(_create_stream)


class CupyGraphs(Graphs):
    """CUDA graphs on a `cupy.cuda.Device`."""

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
        # Free the memory that CuPy's default pool has cached, since the graphs' pool cannot use it.
        cupy.get_default_memory_pool().free_all_blocks()
        return _GraphMemory(self.device)

    def capture(self, run: Callable[[], None], pool: Any) -> Callable[[], None]:
        stream = cupy.cuda.get_current_stream()
        with cupy.cuda.using_allocator(pool.malloc):
            stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
            try:
                run()
            except BaseException:
                with contextlib.suppress(Exception):  # Ending an invalid capture raises an error.
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        launch: Callable[[], None] = graph.launch  # The graph runs on this thread's current stream.
        return launch

    def take(self, pairs: Iterable[tuple[Any, Any]], position: Any) -> None:
        for all_steps, few in pairs:
            _take_kernel()(all_steps, position, few.size // few.shape[0], few)

    def memory(self, array: Any) -> int:
        return id(array.data.mem)


class _GraphMemory:
    """A memory pool that keeps all its memory until its graphs are released.

    CuPy's own pool is unsuitable. If memory runs short, it frees blocks that no array uses, even if
    graphs write to them. It also does not free its blocks when it is deleted (CuPy 14.2,
    `SingleDeviceMemoryPool`).
    """

    def __init__(self, device: Any) -> None:
        self._device, self._kept = device, list[Any]()
        kept = self._kept  # Use a closure, because a method would keep this object alive.

        def allocate(size: int) -> Any:
            kept.append(cupy.cuda.Memory(size))
            return cupy.cuda.MemoryPointer(kept[-1], 0)

        self._pool = cupy.cuda.MemoryPool(allocate)
        self.malloc = self._pool.malloc

    def __del__(self) -> None:
        with contextlib.suppress(Exception), self._device:  # CUDA may already be shut down at exit.
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
