"""Record a program's kernel calls one by one, merge them, and convert them to tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.backends._numpy.tracing.traced import Finder, Traced, value_of

if TYPE_CHECKING:  # Avoid this import in short fits, which have no kernel calls.
    from mlp_xp.backends._numpy.runtime.tasks import Task


class Tables:
    """A program's pending kernel calls, and the tables of earlier calls.

    Attributes
    ----------
    all : list of array
        All tables, including tables to which calls refer.
    kept : dict
        The tables and the arrays to which they refer, by id, to keep them alive.
    patches : list
        Addresses that change: a record, its field, and how to find the array in the arguments.
    """

    def __init__(self) -> None:
        self.all: list[np.ndarray] = []
        self.kept: dict[int, Any] = {}
        self.patches: list[tuple[Any, int | str, Finder]] = []
        self._pending: list[Task] = []
        self._rows: list[tuple[np.ndarray, list[Any]]] = []  # The first rows of the next table.

    @property
    def are_empty(self) -> bool:
        """Whether no call is pending."""
        return not (self._pending or self._rows)

    def add(self, task: Task) -> None:
        """Record a kernel call; consecutive calls form a table."""
        self._pending.append(_recorded(task))

    def add_group(self, parts: Sequence[Sequence[Task]], is_shared: bool) -> None:
        """Record a kernel call with several parts; one thread runs all calls in a part."""
        from mlp_xp.backends._numpy.runtime.tasks import Group, Task

        tasks = [_recorded(task) for part in parts for task in part]
        others = [x for task in tasks for x in (*task.fields, *task.others) if hasattr(x, "dtype")]
        group = Group(False, len(parts), len(parts[0]), self._nest(tasks))
        self.add(Task(group, is_shared, tuple(others)))

    def make_rows(self, *, is_last: bool = False) -> None:
        """Convert the pending calls to rows, which frees the memory of intermediate results."""
        if self._pending:
            from mlp_xp.backends._numpy.runtime.tasks import table
            from mlp_xp.backends._numpy.tracing.fusion import fused
            from mlp_xp.backends._numpy.tracing.joining import joined

            loops = joined(self._pending, is_last=is_last)
            rows, arrays = table(fused(loops, self._nest, is_last=is_last))
            self._rows.append((rows, self._refer(arrays)))
            self._pending = []

    def end(self, *, is_last: bool = False) -> np.ndarray | None:
        """End the table of pending calls; return its step range, or None if there are no calls."""
        self.make_rows(is_last=is_last)
        if not self._rows:
            return None
        from mlp_xp.backends._numpy.runtime.tasks import step_range

        records = np.concatenate([rows for rows, _ in self._rows])
        first = 0
        for rows, moving in self._rows:
            self._add(records[first : first + len(rows)], moving)
            first += len(rows)
        self._keep(records)
        self._rows = []
        return step_range(records)

    def _nest(self, tasks: Sequence[Task]) -> np.ndarray:
        """Return a table of kernel calls to which another call refers."""
        from mlp_xp.backends._numpy.runtime.tasks import table

        records, arrays = table(tasks)
        self._add(records, self._refer(arrays))
        self._keep(records)
        return records

    def _refer(self, arrays: Sequence[tuple[int, int, Any]]) -> list[tuple[int, int, Finder]]:
        """Keep the arrays of a table's rows alive; return how to find arrays that move."""
        moving = []
        for row, column, array in arrays:
            if getattr(array, "find_view", None) is not None:
                moving.append((row, column, array.find_view))
            else:
                value = value_of(getattr(array, "owner", array))
                self.kept[id(value)] = value
        return moving

    def _add(self, records: np.ndarray, moving: Sequence[tuple[int, int, Finder]]) -> None:
        self.patches += [(records[row], column, find_view) for row, column, find_view in moving]

    def _keep(self, records: np.ndarray) -> None:
        self.kept[id(records)] = records
        self.all.append(records)


def _recorded(task: Task) -> Task:
    """Return a kernel call that refers to memory, so that it may outlive traced arrays."""
    fields, others = (
        [x.memory if isinstance(x, Traced) else x for x in given]
        for given in (task.fields, task.others)
    )
    return task._replace(fields=task.fields._make(fields), others=tuple(others))
