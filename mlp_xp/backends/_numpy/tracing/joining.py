"""Merge consecutive loops of the same length into one loop (loop fusion).

A loop is merged into an earlier one if no loop in between uses its results or changes its inputs.
Results that only the merged loop reads are not written to memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mlp_xp.backends._numpy.runtime.tasks import (
    MOST_ARRAYS,
    FormulaLoop,
    Task,
    address,
    formula_loop,
)
from mlp_xp.backends._numpy.tracing.traced import Memory, value_of
from mlp_xp.compiler.graph import Node, in_order
from mlp_xp.compiler.kernel import (
    EVERY,
    MOST_OPERATIONS,
    SCALAR,
    STRIDED,
    VIEWS,
    Kernel,
    input_node,
    replaced,
)

# The addresses of an array's first byte and of the byte after its last one.
Span = tuple[int, int]


def joined(tasks: Sequence[Task], *, is_last: bool = False) -> list[Task]:
    """Return kernel calls with consecutive loops merged.

    Results in pooled memory are not written if no later call reads them and no traced array refers
    to them. If these are the step's last calls, traced arrays are ignored.
    """
    parts: list[Task | _Joined] = []
    first = 0  # Loops before this part cannot be merged with later ones.
    for task in tasks:
        if isinstance(task.fields, FormulaLoop):
            _place(_Joined(task), parts, first)
        else:
            parts.append(task)
            first = len(parts)
    later: list[Span] = []  # Memory that later calls may read.
    remaining: list[Task] = []
    for part in reversed(parts):
        found = part.calls(later, is_last=is_last) if isinstance(part, _Joined) else [part]
        remaining += found[::-1]
        later += [span for task in found for span in _spans(task)]
    return remaining[::-1]


def _place(loop: _Joined, parts: list[Any], first: int) -> None:
    """Merge a loop into the last existing loop that can also compute it; otherwise, append it."""
    for part in reversed(parts[first:]):
        if part.can_take(loop):
            part.take(loop)
            return
        if part.excludes(loop):
            break
    parts.append(loop)


class _Joined:
    """One or more loops, merged into a single loop."""

    def __init__(self, task: Task) -> None:
        self.tasks = [task]
        fields = task.fields
        kernel: Kernel = fields.loop
        self.is_shared, self.sums_rows = task.is_shared, kernel.sums_rows
        self.size = fields.size
        self.n_operations = kernel.n_operations
        self.grid = None if kernel.is_flat else fields.grid
        arrays = fields.arrays
        self.inputs: dict[Any, tuple[Any, str, Node]] = {}
        given = zip(arrays, kernel.layouts, kernel.inputs, strict=False)
        same = {node: self._input(array, layout, node.dtype) for array, layout, node in given}
        results = fields.results
        nodes = replaced(kernel.wanted, same)
        self.written = {
            _key(array, layout): (array, node)
            for array, layout, node in zip(
                results, kernel.layouts[len(kernel.inputs) :], nodes, strict=False
            )
        }
        self.total = None if kernel.total is None else (results[len(kernel.results)], nodes[-1])

    def _input(self, array: Any, layout: str, dtype: str) -> Node:
        found = self.inputs.setdefault(
            _key(array, layout), (array, layout, input_node(len(self.inputs), dtype))
        )
        return found[2]

    def _reads(self) -> Iterator[tuple[Any, Span]]:
        yield from ((key, _span(array)) for key, (array, _, _) in self.inputs.items())

    def _writes(self) -> Iterator[tuple[Any, Span]]:
        yield from ((key, _span(array)) for key, (array, _) in self.written.items())
        if self.total is not None:
            yield None, _span(self.total[0])

    @property
    def sums_flat(self) -> bool:
        """Whether a flat loop sums all elements, in a different order than by rows."""
        return self.total is not None and self.grid is None

    @property
    def has_steps(self) -> bool:
        """Whether any column has an arbitrary stride, which changes LLVM's order of summation."""
        layouts = [layout for _, layout, _ in self.inputs.values()]
        return not {*layouts, *(key[-1] for key in self.written)}.isdisjoint((EVERY, STRIDED))

    def can_take(self, other: _Joined) -> bool:
        """Whether this loop can also compute another loop, after its own results."""
        is_of_rows = self.sums_rows or other.sums_rows
        has_sum = self.total is not None or other.total is not None
        n_arrays = len({*self.inputs, *({*other.inputs} - {*self.written})}) + has_sum
        n_arrays += sum(not is_free(array) for array, _ in (self.written | other.written).values())
        return (
            self.size == other.size
            and self.n_operations + other.n_operations <= MOST_OPERATIONS
            and (self.grid is None or other.grid is None or self.grid == other.grid)
            and (self.total is None or other.total is None)
            and not (has_sum and (self.has_steps or other.has_steps))
            and not any(a.sums_flat and b.grid for a, b in ((self, other), (other, self)))
            and n_arrays < MOST_ARRAYS  # Leave room for a result that another loop reads.
            and (not has_sum or is_of_rows or not (self.is_shared or other.is_shared))
            and not _clash(self._writes(), other._reads())
            and not _clash((*self._reads(), *self._writes()), other._writes())
        )

    def excludes(self, other: _Joined) -> bool:
        """Whether another loop must run after this one."""
        own = [(None, span) for _, span in self._writes()]
        return _clash(own, (*other._reads(), *other._writes())) or _clash(
            [(None, span) for _, span in self._reads()], other._writes()
        )

    def take(self, other: _Joined) -> None:
        """Merge another loop into this one."""
        self.tasks += other.tasks
        self.n_operations += other.n_operations
        same = {}
        for key, (array, layout, node) in other.inputs.items():
            own = self.written.get(key)
            same[node] = own[1] if own else self._input(array, layout, node.dtype)
        nodes = [node for _, node in other.written.values()]
        totals = [] if other.total is None else [other.total[1]]
        nodes = replaced([*nodes, *totals], same)
        for (key, (array, _)), node in zip(other.written.items(), nodes, strict=False):
            self.written[key] = array, node
        if other.total is not None:
            self.total = other.total[0], nodes[-1]
        self.is_shared |= other.is_shared
        self.sums_rows |= other.sums_rows
        self.grid = self.grid or other.grid

    def calls(self, later: Sequence[Span], *, is_last: bool) -> list[Task]:
        """Return the kernel call that writes only results in use; no call if there are none.

        If the call would have too many arrays, split the loop in half and return both calls.
        """

        def is_read(array: Any) -> bool:
            is_unused = is_free(array, is_last=is_last)
            return not is_unused or any(_overlap(_span(array), span) for span in later)

        written = {key: own for key, own in self.written.items() if is_read(own[0])}
        total = self.total if self.total is not None and is_read(self.total[0]) else None
        wanted = [node for _, node in written.values()] + ([] if total is None else [total[1]])
        if not wanted:
            return []
        needed = set(in_order(wanted))
        used = {key: own for key, own in self.inputs.items() if own[2] in needed}
        same = {node: input_node(i, node.dtype) for i, (_, _, node) in enumerate(used.values())}
        nodes = replaced(wanted, same)
        if len(used) + len(wanted) > MOST_ARRAYS:
            half = len(self.tasks) // 2
            second = _as_one(self.tasks[half:]).calls(later, is_last=is_last)
            later = [*later, *(span for task in second for span in _spans(task))]
            return [*_as_one(self.tasks[:half]).calls(later, is_last=is_last), *second]
        positions = list(used)
        kernel = Kernel(
            tuple(same.values()),
            (*(layout for _, layout, _ in used.values()), *(key[-1] for key in written)),
            tuple(nodes[: len(written)]),
            tuple(positions.index(key) if key in used else -1 for key in written),
            None if total is None else nodes[-1],
            self.sums_rows and total is not None,
        )
        arrays = [array for array, *_ in written.values()]
        arrays += [] if total is None else [total[0]]
        given = [array for array, *_ in used.values()]
        fields = formula_loop(kernel, self.grid or (1, self.size), given, arrays, self.size)
        return [Task(fields, self.is_shared)]


def _as_one(tasks: Sequence[Task]) -> _Joined:
    first, *others = map(_Joined, tasks)
    for other in others:
        first.take(other)
    return first


def is_free(array: Any, *, is_last: bool = False) -> bool:
    """Whether no traced array refers to the array's pooled memory anymore."""
    owner = array.owner
    return owner.is_pooled and (is_last or owner.n_arrays == 0)


def _key(array: Any, layout: str) -> Any:
    """Return a key that is equal for identical inputs."""
    value = value_of(array)
    if layout == SCALAR and isinstance(array, np.ndarray):
        return value.dtype.name, value.tobytes()  # A constant.
    # Arguments at the same address may be separate arrays in a later call.
    strides = value.strides if layout in VIEWS else None
    return id(getattr(array, "owner", array)), address(array), value.dtype.name, strides, layout


def overlap(a: Any, b: Any) -> bool:
    """Whether the memory of two arrays overlaps."""
    return _overlap(_span(a), _span(b))


def _span(array: Any) -> Span:
    return array.span if isinstance(array, Memory) else np.lib.array_utils.byte_bounds(array)


def _overlap(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _clash(own: Iterable[tuple[Any, Span]], others: Iterable[tuple[Any, Span]]) -> bool:
    """Whether any arrays overlap, except identical ones, which are accessed elementwise."""
    own = list(own)
    return any(
        _overlap(a, b) and (key is None or key != other) for other, b in others for key, a in own
    )


def _spans(task: Task) -> Iterator[Span]:
    """Yield the memory that a kernel call may read."""
    yield from (_span(x) for x in (*task.fields, *task.others) if isinstance(x, Memory))
