"""Training steps as CUDA graphs: captured once, then up to 32 steps with one launch.

A launch costs the host 5 to 10 microseconds, more than the arithmetic of most kernels of a small
network. A graph queues hundreds of them at once. It is a recording: the same kernels on the same
memory with the same numbers by value. So

- the state stays in its memory from step to step, and is returned there;
- the arguments of an epoch's steps are copied to buffers, from which a graph takes those of its
  steps: a position on the device says where they begin, and the graph advances it;
- intermediate results lie in a memory pool that nobody else uses, as long as the graph exists;
- the work is on a stream of its own, ordered by events with the stream of the caller.

What cannot be captured (a product by cuBLAS, sparse rows, a function that waits for the device)
runs step by step as before, and the log says why. References: "CUDA Programming Guide", chapter
"CUDA Graphs"; PyTorch's notes on CUDA graphs, for the traps.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import operator
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import cupy

from mlp_xp._utils.array_types import Tree
from mlp_xp._utils.tree import leaves, map_leaves
from mlp_xp.backends._cupy.rendering import kernel

__all__ = ["CapturedLoop"]

# Steps that run one by one before anything is captured. Captures cost the host about as much as 63
# steps, 32 + 16 + ... + 1, so a training never takes much more than twice the time of its steps.
_STEPS_BEFORE_CAPTURE = 64
# The most steps of a graph: longer ones would save less than a microsecond a step.
_MOST_STEPS = 32
# Shapes of steps that stay captured: full batches, a shorter last one, and those of other data.
_MOST_SHAPES = 4

_log = logging.getLogger(__name__)


class CapturedLoop:
    """Many steps of a pure function ``body(i, state, steps, *shared) -> state``.

    For one user at a time: the state that is returned is always in the same memory.

    Parameters
    ----------
    body : callable
        As `mlp_xp.backends.Backend.loop` takes it.
    device : cupy.cuda.Device
    """

    def __init__(self, body: Callable[..., Any], device: Any) -> None:
        self._body = body
        self._device = device
        self._is_refused = False
        self._forget()

    def _forget(self) -> None:
        """Release all graphs, and what they hold."""
        self._state: Any = None
        self._shared: list[Callable[[], Any]] = []
        self._shapes: dict[Any, _Steps] = {}
        self._n_steps = 0

    def __call__(self, start: int, stop: int, state: Any, steps: Any, *shared: Any) -> Any:
        if not self._is_refused:
            self._share(shared)
            first = min(stop, start + max(0, _STEPS_BEFORE_CAPTURE - self._n_steps))
            self._n_steps += stop - start
            state = self._run_one_by_one(start, first, state, steps, shared)
            start = first
            if start < stop:
                start, state = self._run_graphs(start, stop, state, steps, shared)
        return self._run_one_by_one(start, stop, state, steps, shared)

    def _run_one_by_one(self, start: int, stop: int, state: Any, steps: Any, shared: Any) -> Any:
        for i in range(start, stop):
            state = self._body(i, state, steps, *shared)
        return state

    def _run_graphs(
        self, start: int, stop: int, state: Any, steps: Any, shared: Any
    ) -> tuple[int, Any]:
        """Run steps as graphs; return where they end, which is early if they cannot be captured."""
        with self._device, self._ordered() as stream:
            self._adopt(state)
            here = self._steps_like(steps)
            here.load(steps, start)
            while start < stop:
                n = min(_MOST_STEPS, 1 << (stop - start).bit_length() - 1)
                if not here.is_warm:
                    # The first step compiles kernels and chooses the algorithms of products.
                    n, here.is_warm = 1, True
                    here.run(n, self._body, self._state, shared)
                else:
                    try:
                        graph = here.graph(n, stream, self._body, self._state, shared)
                    except Exception as error:
                        _report(self._body, f"{type(error).__name__}: {error}".partition("\n")[0])
                        state = self._state
                        self._is_refused = True
                        self._forget()
                        return start, state
                    graph.launch(stream)
                start += n
                here.next_step = start
            return stop, self._state

    @contextlib.contextmanager
    def _ordered(self) -> Iterator[Any]:
        """Set the stream of the graphs as the current one, in order with the work of the caller."""
        caller, stream, event = cupy.cuda.get_current_stream(), *_streams.on(self._device.id)
        stream.wait_event(caller.record(event))
        try:
            with stream:
                yield stream
        finally:
            caller.wait_event(stream.record(event))

    def _share(self, shared: Any) -> None:
        """Start again where the arrays that all steps share are others: their memory is in graphs.

        They are not kept alive.
        """
        arrays = [leaf for leaf in leaves(shared) if leaf is not None]
        if not _are([known() for known in self._shared], arrays):
            self._forget()
            self._shared = [weakref.ref(array) for array in arrays]

    def _adopt(self, state: Any) -> None:
        """Copy another state to the memory of ours if it fits there, else take it over."""
        if state is self._state:
            return
        new = list(leaves(state))
        old = [] if self._state is None else list(leaves(self._state))
        if list(map(_kind, old)) == list(map(_kind, new)):
            _write(old, new)
        else:
            self._shapes, self._state = {}, state  # It was donated: its memory is ours.

    def _steps_like(self, steps: Any) -> _Steps:
        """Return the buffers and graphs for steps of this shape, the latest ones being kept."""
        key = tuple(None if leaf is None else _kind(leaf) for leaf in leaves(steps))
        found = self._shapes.pop(key, None) or _Steps(steps)
        self._shapes[key] = found
        for oldest in list(self._shapes)[:-_MOST_SHAPES]:
            del self._shapes[oldest]
        return found


class _Steps:
    """Buffers for the steps of an epoch that have one shape, and the graphs that run them."""

    def __init__(self, steps: Any) -> None:
        self.is_warm = False
        self.next_step = 0
        self._pool = cupy.cuda.MemoryPool()
        self._graphs: dict[int, Any] = {}
        self._loaded: list[Any] = []
        self._position = cupy.zeros(1, dtype=cupy.int64)
        # All steps of an epoch, and those of a graph.
        self._all = _map_arrays(lambda leaf: cupy.empty(leaf.shape, leaf.dtype), steps)
        self._few = _map_arrays(lambda leaf: cupy.empty_like(leaf[:_MOST_STEPS, ...]), self._all)

    def load(self, steps: Any, start: int) -> None:
        """Copy the arguments of an epoch's steps to the buffers, and go to a step of them."""
        new = list(leaves(steps))
        if not _are(new, self._loaded):
            for buffer, leaf in zip(leaves(self._all), new, strict=True):
                if leaf is not None:
                    buffer[...] = leaf
            self._loaded = new
        if self.next_step != start:
            self._position.fill(start)
            self.next_step = start

    def run(self, n: int, body: Callable[..., Any], state: Any, shared: Any) -> None:
        """Launch the next steps; their result is in the memory of the state."""
        for all_steps, few in zip(leaves(self._all), leaves(self._few), strict=True):
            if few is not None:
                size = few.size // few.shape[0]
                _take_kernel()(all_steps, self._position, size, few[:n, ...])
        new = state
        for i in range(n):
            new = body(i, new, self._few, *shared)
        _write(list(leaves(state)), list(leaves(new)))
        self._position += n

    def graph(self, n: int, stream: Any, body: Callable[..., Any], state: Any, shared: Any) -> Any:
        """Return the graph of so many steps, captured on a stream where they have run before."""
        if n not in self._graphs:
            if not self._graphs:
                # The memory of the steps so far: the graphs' own pool cannot have it otherwise.
                cupy.get_default_memory_pool().free_all_blocks()
            with cupy.cuda.using_allocator(self._pool.malloc), _no_collection():
                stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
                try:
                    self.run(n, body, state, shared)
                except BaseException:
                    with contextlib.suppress(Exception):  # It is invalid by now.
                        stream.end_capture()
                    raise
                self._graphs[n] = stream.end_capture()
        return self._graphs[n]


@kernel()
def _take_kernel() -> Any:
    return cupy.ElementwiseKernel(
        "raw T all_steps, raw int64 position, int64 size",
        "T few",
        "few = all_steps[position[0] * size + i];",
        "mlp_xp_take_steps",
    )


def _kind(array: Any) -> tuple[Any, ...]:
    return array.shape, array.dtype


def _are(arrays: list[Any], others: list[Any]) -> bool:
    """Whether two lists hold the same objects; their numbers would have to be waited for."""
    return len(arrays) == len(others) and all(map(operator.is_, arrays, others))


def _map_arrays(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """Apply a function to each array of a tree that may hold None."""
    return map_leaves(lambda leaf: None if leaf is None else function(leaf), tree)


def _write(old: list[Any], new: list[Any]) -> None:
    """Copy a state to the memory of another one, some of which it may already be in.

    Raises
    ------
    TypeError
        If an array has another shape or dtype.
    """
    memory = {id(array.data.mem) for array in old}
    moved = [(mine, value) for mine, value in zip(old, new, strict=True) if mine is not value]
    for mine, value in moved:
        if _kind(mine) != _kind(value):
            raise TypeError(f"an array of the state turns from {_kind(mine)} into {_kind(value)}")
    # A rule may return two arrays in each other's place.
    apart = [value.copy() if id(value.data.mem) in memory else value for _, value in moved]
    for (mine, _), value in zip(moved, apart, strict=True):
        mine[...] = value


class _Streams(threading.local):
    """The stream of the graphs on each device, and an event for its order; each thread has its own.

    Another thread's work on it would become part of a graph. It does not wait for the default
    stream by itself, nor the reverse: that would break a capture.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Any]] = {}

    def on(self, device: int) -> tuple[Any, Any]:
        """Return those of the current device."""
        if device not in self._known:
            event = cupy.cuda.Event(disable_timing=True)
            self._known[device] = cupy.cuda.Stream(non_blocking=True), event
        return self._known[device]


_streams = _Streams()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Stop the garbage collector: finalizers may wait for the device."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@lru_cache(maxsize=128)
def _report(body: Callable[..., Any], reason: str) -> None:
    """Write one log line for each function and reason."""
    _log.warning("Training steps run one by one, as no CUDA graph can hold them (%s).", reason)
