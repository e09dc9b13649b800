"""CUDA graphs in torch, for `mlp_xp.backends._cuda.captured`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from mlp_xp.backends._cuda.captured import Graphs, Streams

_streams = Streams(lambda device: torch.cuda.Stream(device))


class TorchGraphs(Graphs):
    """CUDA graphs on one device."""

    @contextlib.contextmanager
    def ordered(self) -> Iterator[None]:
        with torch.cuda.device(self.device):
            caller, stream = torch.cuda.current_stream(), _streams.on(self.device)
            stream.wait_stream(caller)
            try:
                with torch.cuda.stream(stream):
                    yield
            finally:
                caller.wait_stream(stream)

    def new_pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def capture(self, run: Callable[[], None], pool: Any) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # `torch.cuda.graph` would wait for the device and empty the cache each time.
        graph.capture_begin(pool=pool, capture_error_mode="relaxed")
        try:
            run()
        except BaseException:
            with contextlib.suppress(Exception):  # Ending an invalid capture raises an error.
                graph.capture_end()
            raise
        graph.capture_end()
        replay: Callable[[], None] = graph.replay
        return replay

    def take(self, pairs: Iterable[tuple[Any, Any]], position: Any) -> None:
        for all_steps, few in pairs:
            rows = position + torch.arange(few.shape[0], device=position.device)
            torch.index_select(all_steps, 0, rows, out=few)

    def memory(self, array: Any) -> int:
        return int(array.untyped_storage().data_ptr())
