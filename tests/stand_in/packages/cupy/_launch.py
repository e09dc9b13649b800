"""Work on a device: queues, events and captures, as late and as strict as CUDA allows.

Every operation on arrays goes through `launch`, which checks its operands, counts it, and runs,
queues or captures it. A kernel runs at once, after all that its stream has to wait for. A copy
waits in its stream until something needs it: a later kernel there, a stream that waits for it, or
the host. So a missing wait leaves garbage. Clocks of the streams find every pair of accesses to
the same memory that nothing orders.

The function that `launch` runs closes over NumPy views (``array._a``), never over arrays of the
stand-in: a captured operation must not keep memory alive that its arrays no longer own.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cupy import _errors
from cupy._errors import CUDARuntimeError, RaceError
from cupy._memory import Block, Part, commit_freed, lock

N_DEVICES = 2
LEGACY = 0

# Names of what was launched, across devices, a graph as one launch; `launches.clear()` starts anew.
launches: Counter[str] = Counter()
# Names of what ran as a part of a graph.
replayed: Counter[str] = Counter()
# Names of what made the host wait for the device.
waits: Counter[str] = Counter()


class Access(NamedTuple):
    """A use of memory: by which queue, and when on its clock."""

    queue: int
    tick: int


class Moment(NamedTuple):
    """A point in the work of a queue, as an event records it."""

    queue: Queue
    position: int
    clock: dict[int, int]
    capture: Capture | None


class Queue:
    """The work of a stream; `clock` holds what has happened before its end."""

    _numbers = iter(range(1, 1 << 60))

    def __init__(self, device: int, *, pointer: int | None = None, non_blocking: bool = False):
        self.id = next(self._numbers)
        self.device = device
        # A real stream is an address; these are as large, and no two devices share one.
        self.pointer = 0x7F00_0000_0000 + self.id * 16 if pointer is None else pointer
        self.non_blocking = non_blocking
        self.clock: dict[int, int] = {self.id: 0}
        self.pending: list[Callable[[], object]] = []
        self.n_done = 0  # How many of all that was queued have run.
        self.capture: Capture | None = None

    @property
    def position(self) -> int:
        return self.n_done + len(self.pending)

    def flush(self, until: int | None = None) -> None:
        while self.pending and (until is None or self.n_done < until):
            run = self.pending.pop(0)
            self.n_done += 1
            run()

    def wait(self, other: Queue, position: int, clock: dict[int, int]) -> None:
        """Order all later work after another queue's, without running that now."""
        merge(self.clock, clock)
        if other is not self and other.n_done < position:
            self.pending.append(lambda: other.flush(position))

    def obey_default_stream(self) -> None:
        """Order the legacy default stream and the blocking streams as CUDA does."""
        if self.non_blocking:
            return
        others = [q for q in queues() if q.device == self.device and not q.non_blocking]
        for other in others:
            if other is not self and LEGACY in (self.pointer, other.pointer):
                if other.capture is not None and self.capture is None:
                    fail_capture(other.capture, _errors.CAPTURE_IMPLICIT)
                if self.capture is None:
                    self.wait(other, other.position, other.clock)

    def moment(self) -> Moment:
        """Return the end of what is queued now."""
        self.obey_default_stream()
        return Moment(self, self.position, dict(self.clock), self.capture)


class Capture:
    """Operations that a stream records for a graph, with the accesses among them."""

    def __init__(self, origin: Queue, *, is_relaxed: bool) -> None:
        self.origin = origin
        self.is_relaxed = is_relaxed
        self.is_valid = True
        self.nodes: list[Node] = []
        self.queues = [origin]
        self.accesses: dict[Part, tuple[Access | None, dict[int, int]]] = {}
        self.grants: dict[Block, int] = {}


class Node(NamedTuple):
    name: str
    run: Callable[[], object]
    reads: tuple[Block, ...]
    writes: tuple[Block, ...]


class _State(threading.local):
    """The current device of a thread, and its current streams."""

    def __init__(self) -> None:
        self.device = 0
        self.current = [_legacy[device] for device in range(N_DEVICES)]
        self.devices: list[int] = []  # What `with device:` will restore.
        # The streams that these queues belong to, and what `with stream:` will restore.
        self.streams: dict[int, Any] = {}
        self.stack: list[tuple[int, Any]] = []


_legacy = [Queue(device, pointer=LEGACY) for device in range(N_DEVICES)]
_by_pointer: dict[int, Queue] = {}
_host_clock: dict[int, int] = {}
state = _State()


def queues() -> list[Queue]:
    return [*_legacy, *_by_pointer.values()]


def add_queue(*, non_blocking: bool) -> Queue:
    with lock:
        queue = Queue(state.device, non_blocking=non_blocking)
        _by_pointer[queue.pointer] = queue
        return queue


def drop_queue(pointer: int) -> None:
    """Delete a stream; what is queued runs to its end all the same."""
    with lock:
        queue = _by_pointer.pop(pointer, None)
        if queue is not None:
            queue.flush()


def queue_at(pointer: int, device: int | None = None) -> Queue:
    device = state.device if device is None else device
    if pointer == LEGACY:
        return _legacy[device]
    if pointer not in _by_pointer:
        raise CUDARuntimeError(_errors.INVALID_VALUE)
    return _by_pointer[pointer]


def current_queue(device: int | None = None) -> Queue:
    return state.current[state.device if device is None else device]


def set_device(device: int) -> None:
    if not 0 <= device < N_DEVICES:
        raise CUDARuntimeError(_errors.INVALID_DEVICE)
    state.device = device


def merge(clock: dict[int, int], other: dict[int, int]) -> None:
    for queue, tick in other.items():
        if clock.get(queue, -1) < tick:
            clock[queue] = tick


def launch(name, run, *, reads=(), writes=(), stream=None, is_copy=False) -> None:
    """Run, queue or capture an operation, after checks of its operands.

    It closes over NumPy views, not over arrays. A copy waits until something needs it, and may
    read memory of another device.
    """
    queue = current_queue() if stream is None else stream
    for memory in () if is_copy else (*reads, *writes):
        if memory.device_id != queue.device:
            raise ValueError(
                f"The device where the array resides ({memory.device_id}) is different from the "
                f"current device ({queue.device}). Peer access is unavailable between them."
            )
    read, written = (tuple(memory.block for memory in each) for each in (reads, writes))
    enqueue(Node(name, run, read, written), queue, is_copy=is_copy)


def enqueue(node: Node, queue: Queue, *, is_copy: bool = False) -> None:
    with lock:
        commit_freed()
        queue.obey_default_stream()
        if queue.capture is not None:
            _capture(node, queue)
            return
        merge(queue.clock, _host_clock)
        _record_accesses(node, queue)
        launches[node.name] += 1
        if is_copy:
            blocks = {*node.reads, *node.writes}
            for part in _parts(blocks):
                part.n_pending += 1
            queue.pending.append(lambda: _run_copy(node, blocks))
        else:
            queue.flush()
            node.run()


def _run_copy(node: Node, blocks: Iterable[Block]) -> None:
    for part in _parts(blocks):
        part.n_pending -= 1
    node.run()


def _capture(node: Node, queue: Queue) -> None:
    capture: Any = queue.capture
    if not capture.is_valid:
        raise CUDARuntimeError(_errors.CAPTURE_INVALIDATED)
    for cell in getattr(node.run, "__closure__", None) or ():
        assert not hasattr(cell.cell_contents, "_a"), f"{node.name} closes over an array"
    tick = queue.clock[queue.id] = queue.clock[queue.id] + 1
    access = Access(queue.id, tick)
    for part in _parts(node.reads):
        written, read = capture.accesses.setdefault(part, (None, {}))
        _check(node.name, written, queue.clock)
        read[access.queue] = access.tick
    for part in _parts(node.writes):
        written, read = capture.accesses.get(part, (None, {}))
        for earlier in (written, *map(Access._make, read.items())):
            _check(node.name, earlier, queue.clock)
        capture.accesses[part] = (access, {})
    capture.grants.update(dict.fromkeys((*node.reads, *node.writes), Block.n_grants))
    capture.nodes.append(node)


def _record_accesses(node: Node, queue: Queue) -> None:
    """Raise for an access that nothing orders after earlier ones, and record it."""
    tick = queue.clock[queue.id] = queue.clock[queue.id] + 1
    captures = [other.capture for other in queues() if other.capture is not None]
    if any(block.is_released for block in (*node.reads, *node.writes)):
        raise CUDARuntimeError(_errors.ILLEGAL_ADDRESS)
    reads, writes = _parts(node.reads), _parts(node.writes)
    for capture in captures:
        known = capture.accesses
        if any(part in known for part in writes) or any(
            part in known and known[part][0] is not None for part in reads
        ):
            raise RaceError(f"{node.name}: memory of work that is being captured, not run")
    for part in reads:
        _check(node.name, part.written, queue.clock)
        part.read[queue.id] = tick
    for part in writes:
        _check(node.name, part.written, queue.clock)
        for access in part.read.items():
            _check(node.name, access, queue.clock)
        part.written, part.read = (queue.id, tick), {}


def _parts(blocks: Iterable[Block]) -> list[Part]:
    return list(dict.fromkeys(part for block in blocks for part in block.parts))


def _check(name: str, access: tuple[int, int] | None, clock: dict[int, int]) -> None:
    if access is not None and clock.get(access[0], -1) < access[1]:
        raise RaceError(f"{name}: memory in use on another stream, with no wait between")


def refuse_capture(queue: Queue) -> None:
    if queue.capture is not None:
        fail_capture(queue.capture)


def fail_capture(capture: Capture, status: int = _errors.CAPTURE_UNSUPPORTED) -> None:
    """Raise the error of a forbidden operation, after which the capture is lost."""
    capture.is_valid = False
    raise CUDARuntimeError(status)


def refuse_allocation() -> None:
    """Raise where memory of the system is asked for during a capture that forbids it."""
    capture = current_queue().capture
    if capture is not None and not capture.is_relaxed:
        fail_capture(capture)


def check_not_capturing(message: str) -> None:
    """Raise where the current stream is capturing, as CuPy does before it calls cuBLAS."""
    if current_queue().capture is not None:
        raise NotImplementedError(message)


def wait(name: str, queue: Queue) -> None:
    synchronize(queue)
    waits[name] += 1


def synchronize(queue: Queue, moment: Moment | None = None) -> None:
    with lock:
        if moment is None:
            refuse_capture(queue)
            moment = queue.moment()
        elif moment.capture is not None:
            fail_capture(moment.capture, _errors.CAPTURED_EVENT)
        queue.flush(moment.position)
        merge(_host_clock, moment.clock)


def synchronize_device(device: int) -> None:
    with lock:
        here = [queue for queue in queues() if queue.device == device]
        for queue in here:
            refuse_capture(queue)
        for queue in here:
            synchronize(queue)


def flush_all() -> None:
    """Run all that is queued, as the driver does before it takes memory back."""
    for queue in queues():
        queue.flush()


def release(block: Block) -> None:
    """Return memory to the system, which first waits for the device."""
    flush_all()
    block.release()
