"""Graphs: what a stream has captured, replayed on the same memory."""

from __future__ import annotations

from typing import Any

from cupy import _capture, _launch


class Graph:
    """Captured work; each launch runs all of it on the memory of the capture."""

    _capture: _launch.Capture

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            "currently this class cannot be initiated by the user and must be created via "
            "stream capture"
        )

    @classmethod
    def _from_capture(cls, capture: _launch.Capture) -> Graph:
        graph = cls.__new__(cls)
        graph._capture = capture
        return graph

    def launch(self, stream: Any = None) -> None:
        queue = _launch.current_queue() if stream is None else stream._stream
        _capture.launch_graph(self._capture, queue)
