"""Copies of batches through pinned memory, to a device and back, while the device computes.

Copies run in a separate stream. Events order them relative to the computation; the host waits only
for pinned memory that it is about to write or read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from mlp_xp._utils.array_types import Array


class Copier(Protocol):
    """Operations that differ between the libraries that have CUDA's streams and events."""

    def scope(self) -> AbstractContextManager[object]:
        """Return the context in which other methods, streams and events are used."""

    def compute_stream(self) -> Any:
        """Return the stream that the caller computes in."""

    def copy_stream(self) -> Any:
        """Return a new stream that does not wait for other streams."""

    def event(self) -> Any:
        """Return a new event."""

    def allocate(self, like: np.ndarray) -> tuple[np.ndarray, Array]:
        """Return pinned memory and an array on the device, in the shape and dtype of an array."""

    def upload(self, source: np.ndarray, target: Array, stream: Any) -> None:
        """Copy pinned memory to the device, in a stream."""

    def download(self, source: Array, stream: Any) -> np.ndarray:
        """Start to copy an array to new pinned memory, in a stream; return that memory at once."""


def feed(copier: Copier, batches: Iterable[tuple[np.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
    """Copy host batches to the device, each while the one before it is used.

    There are two sets of buffers. A set is refilled only after the computation on its last batch,
    and used only after its copy is done. No batch has more rows than the first.
    """
    # No context stays open while the caller has a batch, since the caller may use another device.
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
        # A batch may still be copied to buffers that are about to be freed.
        copy.synchronize()


class _Buffers:
    """A batch in pinned memory and on the device, with the events of its last use."""

    def __init__(self, copier: Copier) -> None:
        self._copier = copier
        self._pairs: list[tuple[np.ndarray, Any]] = []
        self._rows: list[int] = []
        self._copied = copier.event()
        self._computed = copier.event()

    def fill(self, batch: tuple[np.ndarray, ...], compute: Any, copy: Any) -> None:
        """Copy a batch to the device, in a stream; a shorter one uses the front of the buffers."""
        if not self._pairs:
            self._pairs = [self._copier.allocate(array) for array in batch]
            # The allocated memory may still be in use by work queued on `compute`.
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
        """Return the arrays, for work queued on a stream from now on."""
        with self._copier.scope():
            compute.wait_event(self._copied)
            return tuple(array[:n] for (_, array), n in zip(self._pairs, self._rows, strict=True))

    def release(self, compute: Any) -> None:
        """Record that all work on the arrays has been queued."""
        with self._copier.scope():
            self._computed.record(compute)


def collect(copier: Copier, arrays: Iterable[Array]) -> Iterator[np.ndarray]:
    """Copy arrays to the host, each while the next one is computed."""
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
            previous = copied, host, array  # Its memory must not be freed before it is copied.
        if previous is not None:
            previous[0].synchronize()
            yield previous[1]
    finally:
        copy.synchronize()
