"""Work on a device: memory, streams, events and graphs, as late and as strict as CUDA allows.

Every operation on arrays goes through `launch`, which checks its operands, counts it, and runs,
queues or captures it. Work on the default stream and on blocking streams runs at once; a copy in a
non-blocking stream waits until the host or another stream waits for it, so a
missing wait leaves garbage. Clocks of the streams find every pair of accesses that nothing orders.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

N_DEVICES = 2
GARBAGE = 0xFF  # NaN in every floating dtype, -1 in integers.


class RaceError(RuntimeError):
    """Two accesses to the same memory from streams that nothing orders; CUDA would not notice."""


class Memory:
    """An allocation on a device, full of garbage, with the last accesses of each stream."""

    def __init__(self, n_bytes: int, device: int) -> None:
        self.device = device
        self.bytes = np.full(max(n_bytes, 1), GARBAGE, np.uint8)
        self.written: tuple[int, int] | None = None  # Stream, tick.
        self.read: dict[int, int] = {}


class _State(threading.local):
    device = 0
    streams: dict[int, Any]

    def __init__(self) -> None:
        self.streams = {}


state = _State()
# Names of what was launched, across devices; `launches.clear()` starts anew.
launches: Counter[str] = Counter()


class Stream:
    """The order of work on a device; `clock` holds what has happened before its end."""

    _numbers = iter(range(1 << 30))

    def __init__(self, device: int, *, non_blocking: bool) -> None:
        self.id = next(self._numbers)
        self.device = device
        self.non_blocking = non_blocking
        self.clock: dict[int, int] = {self.id: 0}
        self.pending: list[Callable[[], None]] = []
        self.n_done = 0  # How many of all that was queued have run.
        self.captured: list[Callable[[], None]] | None = None

    def flush(self, until: int | None = None) -> None:
        """Run what is queued, or the part of it up to a position."""
        n = len(self.pending) if until is None else max(0, until - self.n_done)
        work, self.pending = self.pending[:n], self.pending[n:]
        self.n_done += len(work)
        for run in work:
            run()


def launch(
    name: str,
    run: Callable[[], None],
    *,
    reads: Iterable[Memory] = (),
    writes: Iterable[Memory] = (),
    stream: Stream,
    is_copy: bool = False,
) -> None:
    """Run, queue or capture an operation, after checks of its operands."""
    reads, writes = list(reads), list(writes)
    for memory in (*reads, *writes):
        if memory.device != stream.device:
            raise ValueError(
                f"The device where the array resides ({memory.device}) is different from the "
                f"current device ({stream.device}). Peer access is unavailable between them."
            )
    launches[name] += 1
    if stream.captured is not None:
        stream.captured.append(run)
        return
    tick = stream.clock[stream.id] = stream.clock[stream.id] + 1
    for memory in reads:
        _check(name, memory.written, stream)
        memory.read[stream.id] = tick
    for memory in writes:
        _check(name, memory.written, stream)
        for access in memory.read.items():
            _check(name, access, stream)
        memory.written, memory.read = (stream.id, tick), {}
    if is_copy and stream.non_blocking:
        stream.pending.append(run)
    else:
        stream.flush()
        run()


def _check(name: str, access: tuple[int, int] | None, stream: Stream) -> None:
    if access is not None and stream.clock.get(access[0], -1) < access[1]:
        raise RaceError(f"{name}: memory in use on another stream, with no event between")
