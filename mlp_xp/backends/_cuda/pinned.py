"""Copy batches to the device and back through pinned memory while the device computes.

Copies run on a separate stream, and events order them with the computation. The host waits only for
the pinned memory that it reads or writes next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from mlp_xp._utils.array_types import Array


class Copier(Protocol):
    """CuPy's or torch's operations on pinned memory, streams and events."""

    def scope(self) -> AbstractContextManager[object]:
        """Return the context in which the other methods, streams and events must be used."""

    def compute_stream(self) -> Any:
        """Return the stream that the caller computes on."""

    def copy_stream(self) -> Any:
        """Return a new stream that does not synchronize with the default stream."""

    def event(self) -> Any:
        """Return a new event."""

    def allocate(self, like: np.ndarray) -> tuple[np.ndarray, Array]:
        """Return pinned memory and a device array with the shape and dtype of ``like``."""

    def upload(self, source: np.ndarray, target: Array, stream: Any) -> None:
        """Copy pinned memory to the device, on a stream."""

    def download(self, source: Array, stream: Any) -> np.ndarray:
        """Start to copy an array to new pinned memory, on a stream; return that memory at once."""


def feed(copier: Copier, batches: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
    """Copy batches from the host to the device, each while the caller uses the previous one.

    Two sets of buffers alternate. A set is refilled only after the computation with its last batch,
    and used only after the copy. No batch may have more rows than the first.
    """
    # Leave the context while the caller uses a batch, since the caller may use another device.
    with copier.scope():
        compute, copy = copier.compute_stream(), copier.copy_stream()
        ring = [_Buffers(copier), _Buffers(copier)]
    previous = None
    try:
        for number, batch in enumerate(batches):
            buffers = ring[number % 2]
            with copier.scope():
                buffers.fill(batch, compute, copy)
            if previous is not None:
                yield previous.hand_over(compute)
                previous.release(compute)
            previous = buffers
        if previous is not None:
            yield previous.hand_over(compute)
    finally:
        # Wait for unfinished copies before the buffers are freed.
        copy.synchronize()


class _Buffers:
    """Buffers for a batch in pinned memory and on the device, and events for its copy and use."""

    def __init__(self, copier: Copier) -> None:
        self._copier = copier
        self._pairs: list[tuple[np.ndarray, Any]] = []
        self._rows: list[int] = []
        self._copied = copier.event()
        self._computed = copier.event()

    def fill(self, batch: tuple[np.ndarray, ...], compute: Any, copy: Any) -> None:
        """Copy a batch to the device, on the copy stream; a shorter batch uses the first rows."""
        if not self._pairs:
            self._pairs = [self._copier.allocate(array) for array in batch]
            # Copy only after all work queued on `compute`, which may still use the new buffers'
            # memory.
            self._computed.record(compute)
        else:
            self._copied.synchronize()
        copy.wait_event(self._computed)
        self._rows = [len(array) for array in batch]
        for (pinned, array), host in zip(self._pairs, batch, strict=True):
            n = len(host)
            pinned[:n] = host
            self._copier.upload(pinned[:n], array[:n], copy)
        self._copied.record(copy)

    def hand_over(self, compute: Any) -> tuple[Any, ...]:
        """Return the device arrays; later work on the stream waits until they have been copied."""
        with self._copier.scope():
            compute.wait_event(self._copied)
            return tuple(array[:n] for (_, array), n in zip(self._pairs, self._rows, strict=True))

    def release(self, compute: Any) -> None:
        """Record an event on the stream after the work that uses these arrays."""
        with self._copier.scope():
            self._computed.record(compute)


def collect(copier: Copier, arrays: Iterable[Array]) -> Iterator[np.ndarray]:
    """Copy device arrays to the host, each while the next array is computed."""
    with copier.scope():
        compute, copy = copier.compute_stream(), copier.copy_stream()
    previous = None
    try:
        for array in arrays:
            with copier.scope():
                computed, copied = copier.event(), copier.event()
                computed.record(compute)
                copy.wait_event(computed)
                host = copier.download(array, copy)
                copied.record(copy)
            if previous is not None:
                previous[0].synchronize()
                yield previous[1]
            previous = copied, host, array  # Keep the array alive until it has been copied.
        if previous is not None:
            previous[0].synchronize()
            yield previous[1]
    finally:
        copy.synchronize()
