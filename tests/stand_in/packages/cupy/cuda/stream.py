"""Streams and events."""

from __future__ import annotations

from typing import Any, ClassVar

from cupy import _capture, _launch, _memory
from cupy._launch import Moment, Queue
from cupy.cuda import graph, runtime


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False) -> None:
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        self._moment: Moment | None = None

    @property
    def done(self) -> bool:
        """Whether the work is done: not at the first question, where any of it is still queued."""
        moment = self._moment
        if moment is None:
            return True
        was_done = moment.capture is None and moment.queue.n_done >= moment.position
        self.synchronize()
        return was_done

    def record(self, stream: Any = None) -> None:
        queue = _launch.current_queue() if stream is None else stream._stream
        with _memory.lock:
            self._moment = queue.moment()

    def synchronize(self) -> None:
        if self._moment is not None:
            _launch.synchronize(self._moment.queue, self._moment)


class Stream:
    """The order of work on a device; on a stream of its own, or on the default stream."""

    null: ClassVar[Stream]

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None) -> None:
        if ptds or priority is not None:
            raise NotImplementedError("the stand-in for CuPy has plain streams alone")
        if null:
            self.ptr, self.device_id = _launch.LEGACY, -1
        else:
            queue = _launch.add_queue(non_blocking=non_blocking)
            self.ptr, self.device_id = queue.pointer, queue.device

    # The defaults: modules are empty when the interpreter ends.
    def __del__(self, free_later: Any = _memory.free_later, drop: Any = _launch.drop_queue) -> None:
        if pointer := getattr(self, "ptr", 0):
            free_later(lambda: drop(pointer))

    @property
    def _stream(self) -> Queue:
        return _launch.queue_at(self.ptr, None if self.device_id < 0 else self.device_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def _device_here(self) -> int:
        here = runtime.getDevice()
        if self.device_id not in (-1, here):
            raise RuntimeError(f"{self.device_id} does not match with the current device ({here})")
        return here

    def __enter__(self) -> Stream:
        device = self._device_here()
        _launch.state.stack.append((device, get_current_stream(device)))
        return self.use()

    def __exit__(self, *args: object) -> None:
        device, previous = _launch.state.stack.pop()
        _set_current(previous, device)

    def use(self) -> Stream:
        _set_current(self, self._device_here())
        return self

    @property
    def done(self) -> bool:
        """Whether all work is done: not at the first question, where any of it is still queued."""
        was_done = not self._stream.pending
        self.synchronize()
        return was_done

    def synchronize(self) -> None:
        _launch.synchronize(self._stream)

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event._moment is not None:
            with _memory.lock:
                _capture.wait_for(self._stream, event._moment)

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == _launch.LEGACY:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        is_relaxed = mode in (None, runtime.streamCaptureModeRelaxed)
        _capture.begin_capture(self._stream, is_relaxed=is_relaxed)

    def end_capture(self) -> graph.Graph:
        return graph.Graph(_capture.end_capture(self._stream))

    def is_capturing(self) -> bool:
        return runtime.streamIsCapturing(self.ptr)


Stream.null = Stream(null=True)


def get_current_stream(device_id: int = -1) -> Stream:
    device = runtime.getDevice() if device_id == -1 else device_id
    return _launch.state.streams.get(device, Stream.null)


def _set_current(stream: Stream, device: int) -> None:
    _launch.state.streams[device] = stream
    _launch.state.current[device] = _launch.queue_at(stream.ptr, device)
