"""Streams and events."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

from cupy import _capture, _errors, _launch, _memory
from cupy._errors import CUDARuntimeError
from cupy._launch import Moment, Node, Queue
from cupy.cuda import graph, runtime


class Event:
    """A moment in the work of a stream."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        self.ptr = id(self)
        self._timed = not disable_timing
        self._moment: Moment | None = None
        self._time = 0.0

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
            self._time = time.perf_counter()

    def synchronize(self) -> None:
        if self._moment is not None:
            _launch.synchronize(self._moment.queue, self._moment)


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    for event in (start_event, end_event):
        if not event._timed or event._moment is None:
            raise CUDARuntimeError(_errors.INVALID_RESOURCE_HANDLE)
        if event._moment.queue.n_done < event._moment.position:
            raise CUDARuntimeError(_errors.NOT_READY)
    return 1e3 * (end_event._time - start_event._time)


class _BaseStream:
    """The order of work on a device."""

    def __init__(self, ptr: int, device_id: int) -> None:
        self.ptr = ptr
        self.device_id = device_id

    @property
    def _stream(self) -> Queue:
        return _launch.queue_at(self.ptr, None if self.device_id < 0 else self.device_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BaseStream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.ptr} (device {self.device_id})>"

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.ptr

    def _device_here(self) -> int:
        """Return the current device, which must be the stream's."""
        here = runtime.getDevice()
        if self.device_id not in (-1, here):
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id})"
                f" does not match with the current device ({here})"
            )
        return here

    def __enter__(self) -> _BaseStream:
        device = self._device_here()
        _launch.state.stack.append((device, get_current_stream(device)))
        self.use()
        return self

    def __exit__(self, *args: object) -> None:
        device, previous = _launch.state.stack.pop()
        _set_current(previous, device)

    def use(self) -> _BaseStream:
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

    def add_callback(self, callback: Callable[[Any, int, Any], None], arg: Any) -> None:
        if self.is_capturing():
            raise CUDARuntimeError(_errors.CAPTURE_UNSUPPORTED)
        self.launch_host_func(lambda arg: callback(self, 0, arg), arg)

    def launch_host_func(self, callback: Callable[[Any], None], arg: Any) -> None:
        node = Node("host function", lambda: callback(arg), (), ())
        _launch.enqueue(node, self._stream, is_copy=True)

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        if event._moment is not None:
            with _memory.lock:
                _capture.wait_for(self._stream, event._moment)

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr in (0, 1):
            raise RuntimeError("cannot capture on the default (legacy) stream")
        mode = runtime.streamCaptureModeRelaxed if mode is None else mode
        is_relaxed = mode == runtime.streamCaptureModeRelaxed
        _capture.begin_capture(self._stream, is_relaxed=is_relaxed)

    def end_capture(self) -> graph.Graph:
        return graph.Graph._from_capture(_capture.end_capture(self._stream))

    def is_capturing(self) -> bool:
        return runtime.streamIsCapturing(self.ptr)

    @property
    def is_non_blocking(self) -> bool:
        return self._stream.non_blocking

    @property
    def priority(self) -> int:
        return 0


class Stream(_BaseStream):
    """A stream of its own, or one of the default streams."""

    null: ClassVar[Stream]
    ptds: ClassVar[Stream]

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int | None = None,
    ) -> None:
        if null or ptds:
            super().__init__(_launch.LEGACY if null else _launch.PER_THREAD, -1)
        else:
            queue = _launch.add_queue(non_blocking=non_blocking)
            super().__init__(queue.pointer, queue.device)
        self._foreign_stream_ref: Any = None

    # The defaults: modules are empty when the interpreter ends.
    def __del__(self, free_later: Any = _memory.free_later, drop: Any = _launch.drop_queue) -> None:
        if getattr(self, "_foreign_stream_ref", self) is None and self.ptr > 2:
            pointer = self.ptr
            free_later(lambda: drop(pointer))

    @classmethod
    def from_external(cls, obj: Any) -> Stream:
        if not hasattr(obj, "__cuda_stream__"):
            raise TypeError(
                f"Object of type {type(obj).__name__} does not implement "
                "the CUDA stream protocol (__cuda_stream__ method)"
            )
        stream = cls.__new__(cls)
        _BaseStream.__init__(stream, obj.__cuda_stream__()[1], -1)
        stream._foreign_stream_ref = obj
        return stream


class ExternalStream(_BaseStream):
    """A stream by its pointer."""

    def __init__(self, ptr: int, device_id: int = -1) -> None:
        warnings.warn(
            "ExternalStream is deprecated. Use Stream.from_external() instead to interoperate "
            "with external streams that implement the CUDA stream protocol.",
            DeprecationWarning,
            stacklevel=2,
        )
        super().__init__(ptr, device_id)


Stream.null = Stream(null=True)
Stream.ptds = Stream(ptds=True)


def get_current_stream(device_id: int = -1) -> _BaseStream:
    device = runtime.getDevice() if device_id == -1 else device_id
    return _launch.state.streams.get(device, Stream.null)


def _set_current(stream: _BaseStream, device: int) -> None:
    _launch.state.streams[device] = stream
    _launch.state.current[device] = _launch.queue_at(stream.ptr, device)
