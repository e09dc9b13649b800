"""Stream capture: what a stream records instead of running it, and its replay."""

from cupy import _errors
from cupy._errors import CUDARuntimeError, RaceError
from cupy._launch import Capture, Moment, Node, Queue, enqueue, fail_capture, replayed
from cupy._memory import lock


def wait_for(queue: Queue, moment: Moment) -> None:
    """Order later work of a queue after a moment of another one, which may be in a capture."""
    queue.obey_default_stream()
    mine, other = queue.capture, moment.capture
    if other is not None and moment.queue.capture is not other:
        raise CUDARuntimeError(_errors.INVALID_VALUE)  # That capture has ended.
    if mine is None and other is not None:
        queue.capture = other
        other.queues.append(queue)
    elif mine is not None and other is None:
        fail_capture(mine, _errors.CAPTURE_ISOLATION)
    elif mine is not None and mine is not other:
        fail_capture(mine, _errors.CAPTURE_MERGE)
    queue.wait(moment.queue, 0 if other is not None else moment.position, moment.clock)


def begin_capture(queue: Queue, *, is_relaxed: bool) -> None:
    with lock:
        if queue.capture is not None:
            raise CUDARuntimeError(_errors.INVALID_VALUE)
        queue.capture = Capture(queue, is_relaxed=is_relaxed)


def end_capture(queue: Queue) -> Capture:
    with lock:
        capture = queue.capture
        if capture is None or capture.origin is not queue:
            raise CUDARuntimeError(_errors.CAPTURE_UNMATCHED)
        is_joined = all(
            queue.clock.get(other.id, -1) >= other.clock[other.id] for other in capture.queues
        )
        for other in capture.queues:
            other.capture = None
        if not capture.is_valid:
            raise CUDARuntimeError(_errors.CAPTURE_INVALIDATED)
        if not is_joined:
            raise CUDARuntimeError(_errors.CAPTURE_UNJOINED)
        return capture


def launch_graph(capture: Capture, queue: Queue) -> None:
    """Run what has been captured, on the same memory, as one launch.

    Memory that was freed since may belong to another capture, as where graphs share a pool.
    """
    for block, grant in capture.grants.items():
        if any(part.outsider > grant for part in block.parts):
            raise RaceError("a graph uses memory that was freed, and now belongs to someone else")

    def replay() -> None:
        for node in capture.nodes:
            replayed[node.name] += 1
            node.run()

    reads = tuple({block: None for node in capture.nodes for block in node.reads})
    writes = tuple({block: None for node in capture.nodes for block in node.writes})
    enqueue(Node("graph", replay, reads, writes), queue)
