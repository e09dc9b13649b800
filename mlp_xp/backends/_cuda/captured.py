"""Training steps as CUDA graphs: captured once, then launched for up to 32 steps at a time.

A kernel launch costs the host 5 to 10 microseconds. In a small network, most kernels run for less
time than that. A graph launches hundreds of kernels at once. Each launch of a graph repeats the
captured kernels with the captured addresses and scalar arguments. Therefore

- the state is updated in place, and the returned state is in the input state's memory;
- the arguments of an epoch's steps are copied to buffers; a graph reads them from a position that
  is stored on the device, and then advances the position;
- intermediate results are in a memory pool that exists as long as the graph;
- the graphs run on a separate stream, and events order this stream with the caller's stream.

Steps that cannot be captured (because of a cuBLAS product in CuPy, or a function that waits for the
device) run one by one, and the log states the reason. References: "CUDA Programming Guide", chapter
"CUDA Graphs"; PyTorch's notes on CUDA graphs, which list the pitfalls.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from mlp_xp._utils.array_types import Namespace, Tree
from mlp_xp._utils.collection import pause_collection
from mlp_xp._utils.tree import leaves, map_leaves

# The number of steps that run one by one before the first capture. Capturing graphs of 32, 16, ...,
# 1 steps costs the host about as much as running 63 steps, so captures at most double the time of a
# fit.
_STEPS_BEFORE_CAPTURE = int(os.environ.get("MLP_XP_STEPS_BEFORE_CAPTURE", 64))
# The maximum number of steps in a graph; longer graphs would save under a microsecond per step.
_MOST_STEPS = 32
# The number of array shapes for which graphs are kept, e.g. full batches and a shorter last batch.
_MOST_SHAPES = 4


_log = logging.getLogger(__name__)


class Graphs(ABC):
    """CuPy's or torch's operations on CUDA graphs, for one device."""

    def __init__(self, xp: Namespace, device: Any) -> None:
        self.xp = xp
        self.device = device

    @abstractmethod
    def ordered(self) -> contextlib.AbstractContextManager[None]:
        """Return the context for work on the graphs' stream, in sync with the caller's stream."""

    @abstractmethod
    def new_pool(self) -> Any:
        """Create a memory pool for graphs that never run at the same time."""

    @abstractmethod
    def capture(self, run: Callable[[], None], pool: Any) -> Callable[[], None]:
        """Capture the kernels that a function launches; return a function to launch the graph."""

    @abstractmethod
    def take(self, pairs: Iterable[tuple[Any, Any]], position: Any) -> None:
        """Fill each pair's second array with rows of the first, starting at row ``position[0]``."""

    @abstractmethod
    def memory(self, array: Any) -> int:
        """Return a number that identifies the memory of an array."""


class Streams(threading.local):
    """The thread's stream for graphs on each device.

    Each thread has separate streams; otherwise one thread could capture another thread's work.
    """

    def __init__(self, create: Callable[[Any], Any]) -> None:
        self._create = create
        self._known: dict[Any, Any] = {}

    def on(self, device: Any) -> Any:
        """Return this thread's stream on a device."""
        if device not in self._known:
            self._known[device] = self._create(device)
        return self._known[device]


class CapturedLoop:
    """A loop of many steps, as returned by `mlp_xp.backends.Backend.loop`.

    Only one fit at a time may use a loop, since every call returns the state in the same memory.
    """

    def __init__(self, body: Callable[..., Any], graphs: Graphs) -> None:
        self._body = body
        self._graphs = graphs
        self._is_refused = False
        self._forget()

    def _forget(self) -> None:
        """Release all graphs and their memory."""
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
        """Run steps as graphs until a capture fails; return the next step and the state."""
        with self._graphs.ordered():
            self._adopt(state)
            here = self._steps_like(steps)
            here.load(steps, start)
            while start < stop:
                n = min(_MOST_STEPS, 1 << (stop - start).bit_length() - 1)
                if not here.is_warm:
                    # The first step compiles kernels and selects algorithms for matrix products.
                    n, here.is_warm = 1, True
                    here.run(n, self._body, self._state, shared)
                else:
                    try:
                        launch = here.graph(n, self._body, self._state, shared)
                    except Exception as error:
                        report(self._body, f"{type(error).__name__}: {error}".partition("\n")[0])
                        state = self._state
                        self._is_refused = True
                        self._forget()
                        return start, state
                    launch()
                start += n
                here.next_step = start
            return stop, self._state

    def _share(self, shared: Any) -> None:
        """Discard all graphs if the shared arrays are new, since graphs contain the old addresses.

        Only weak references to the arrays are kept.
        """
        arrays = [leaf for leaf in leaves(shared) if leaf is not None]
        if not _are([known() for known in self._shared], arrays):
            self._forget()
            self._shared = [weakref.ref(array) for array in arrays]

    def _adopt(self, state: Any) -> None:
        """Copy a new state to the old state's memory if shapes match; otherwise use it directly."""
        if state is self._state:
            return
        new = leaves(state)
        old = [] if self._state is None else leaves(self._state)
        if list(map(_kind, old)) == list(map(_kind, new)):
            _write(old, new, self._graphs)
        else:
            # The caller donated the state, so its memory can be reused.
            self._shapes, self._state = {}, state

    def _steps_like(self, steps: Any) -> _Steps:
        """Return the buffers and graphs for arguments of these shapes; discard the oldest."""
        key = tuple(None if leaf is None else _kind(leaf) for leaf in leaves(steps))
        found = self._shapes.pop(key, None) or _Steps(steps, self._graphs)
        self._shapes[key] = found
        for oldest in list(self._shapes)[:-_MOST_SHAPES]:
            del self._shapes[oldest]
        return found


class _Steps:
    """Buffers for the arguments of an epoch's steps, and the graphs that run the steps."""

    def __init__(self, steps: Any, graphs: Graphs) -> None:
        xp = graphs.xp
        self.is_warm = False
        self.next_step = 0
        self._library = graphs
        self._pool: Any = None
        self._graphs: dict[int, Callable[[], None]] = {}
        self._loaded: list[Any] = []
        self._position = xp.zeros(1, dtype=xp.int64, device=graphs.device)
        # `_all` stores the arguments of all steps in an epoch; `_few` stores the arguments of the
        # steps in one graph.
        self._all = _map_arrays(xp.empty_like, steps)
        self._few = _map_arrays(lambda leaf: xp.empty_like(leaf[:_MOST_STEPS, ...]), self._all)

    def load(self, steps: Any, start: int) -> None:
        """Copy the arguments of an epoch's steps to the buffers; set the position to ``start``."""
        new = leaves(steps)
        if not _are(new, self._loaded):
            for buffer, leaf in zip(leaves(self._all), new, strict=True):
                if leaf is not None:
                    buffer[...] = leaf
            self._loaded = new
        if self.next_step != start:
            self._position[...] = start
            self.next_step = start

    def run(self, n: int, body: Callable[..., Any], state: Any, shared: Any) -> None:
        """Launch the next ``n`` steps, which write their result to the state's memory."""
        pairs = zip(leaves(self._all), leaves(self._few), strict=True)
        taken = ((every, few[:n, ...]) for every, few in pairs if few is not None)
        self._library.take(taken, self._position)
        new = state
        for i in range(n):
            new = body(i, new, self._few, *shared)
        _write(leaves(state), leaves(new), self._library)
        self._position += n

    def graph(
        self, n: int, body: Callable[..., Any], state: Any, shared: Any
    ) -> Callable[[], None]:
        """Return a function that launches a graph of ``n`` steps; the first use captures it."""
        if n not in self._graphs:
            if self._pool is None:
                self._pool = self._library.new_pool()
            with pause_collection():  # Finalizers may wait for the device.
                self._graphs[n] = self._library.capture(
                    lambda: self.run(n, body, state, shared), self._pool
                )
        return self._graphs[n]


def _kind(array: Any) -> tuple[Any, ...]:
    return tuple(array.shape), array.dtype


def _are(arrays: list[Any], others: list[Any]) -> bool:
    """Whether two lists contain the same objects.

    Comparing their values would wait for the device.
    """
    return len(arrays) == len(others) and all(map(operator.is_, arrays, others))


def _map_arrays(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """Apply a function to each array of a tree, whose leaves may be None."""
    return map_leaves(lambda leaf: None if leaf is None else function(leaf), tree)


def _write(old: list[Any], new: list[Any], graphs: Graphs) -> None:
    """Copy a new state to the old state's memory, where some of its arrays may already be."""
    memory = {graphs.memory(array) for array in old}
    moved = [(mine, value) for mine, value in zip(old, new, strict=True) if mine is not value]
    for mine, value in moved:
        if _kind(mine) != _kind(value):
            raise TypeError(f"a step changes an array from {_kind(mine)} to {_kind(value)}")
    # First copy the arrays that would be overwritten, since an update rule may swap two arrays.
    apart = [
        graphs.xp.asarray(value, copy=True) if graphs.memory(value) in memory else value
        for _, value in moved
    ]
    for (mine, _), value in zip(moved, apart, strict=True):
        mine[...] = value


@lru_cache(maxsize=128)
def report(body: Callable[..., Any], reason: str) -> None:
    """Log once per function and reason that the function's steps cannot be captured."""
    _log.warning("Training steps run one by one, without CUDA graphs (%s).", reason)
