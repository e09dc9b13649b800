"""Graphs: what a stream has captured, replayed on the same memory."""

from __future__ import annotations

from typing import Any

from cupy import _capture, _launch


class Graph:
    """Captured work; each launch runs all of it on the memory of the capture."""

    def __init__(self, capture: _launch.Capture) -> None:
        self._capture = capture

    def launch(self, stream: Any = None) -> None:
        queue = _launch.current_queue() if stream is None else stream._stream
        _capture.launch_graph(self._capture, queue)
