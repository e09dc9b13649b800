"""Data shared by several fits: one copy on the device, from which each fit selects its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.signals.forks import fork_safe_lock
from mlp_xp.backends import Backend
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.data.placement import Resident
from mlp_xp.training.data.rows import kept_dtype


class Column:
    """The targets of a data set's rows; each fit adds the targets of its rows.

    The constructor uses only the dtype and the shape of ``targets``.
    """

    def __init__(self, backend: Backend, targets: np.ndarray, n_rows: int) -> None:
        self._backend = backend
        self._values = np.zeros((n_rows, *targets.shape[1:]), targets.dtype)
        self._is_known = np.zeros(n_rows, dtype=bool)
        self._placed: tuple[np.ndarray, Array] | None = None

    def add(self, rows: np.ndarray, targets: np.ndarray) -> bool:
        """Add the targets of some rows; return False if they conflict with known targets."""
        values, is_known = self._values, self._is_known[rows]
        if values.dtype != targets.dtype or values.shape[1:] != targets.shape[1:]:
            return False
        if not np.array_equal(values[rows[is_known]], targets[is_known]):
            return False
        if not np.all(is_known):
            # Copy the array, since the targets on the device may share its memory.
            values = values.copy()
            values[rows] = targets
            self._values = values
            self._is_known[rows] = True
        return True

    @property
    def on_device(self) -> Array:
        """The targets on the device."""
        values, placed = self._values, self._placed  # Other threads may replace these attributes.
        if placed is None or placed[0] is not values:
            self._placed = placed = values, self._backend.put(values)
        return placed[1]


class SharedData:
    """Samples shared by many fits; ``names`` are fitted attributes, e.g. ``feature_names_in_``."""

    def __init__(self, x: Any, names: Mapping[str, Any] | None = None) -> None:
        self.x, self.names = x, names or {}
        self._copies: dict[tuple[Backend, str | None], Any] = {}
        self._columns: list[tuple[Backend, Column]] = []
        self._lock = fork_safe_lock()

    def put(
        self, backend: Backend, targets: np.ndarray, dtype: str, rows: np.ndarray
    ) -> SharedResident:
        """Return some rows and their targets on a device."""
        key = backend, kept_dtype(self.x, dtype)
        with self._lock:
            if key not in self._copies:
                self._copies[key] = backend.contiguous(backend.put(self.x, key[1]))
            for owner, column in self._columns:
                if owner == backend and column.add(rows, targets):
                    break
            else:
                column = Column(backend, targets, self.x.shape[0])
                column.add(rows, targets)
                self._columns.append((backend, column))
        return SharedResident(backend, self._copies[key], column, dtype, rows)


class SharedResident(Resident):
    """Rows of a data set on the device, shared by several fits."""

    def __init__(
        self, backend: Backend, x: Array, column: Column, dtype: str, rows: np.ndarray
    ) -> None:
        super().__init__(backend, x, column.on_device, dtype, rows)
        # Use the other fits' array object, since `put` may have returned a second view of its
        # memory.
        self.x, self.column = x, column

    def rows_of(self, plan: EpochPlan) -> np.ndarray:
        """Return the positions of an epoch's samples in the data set, (steps * batch_size,)."""
        assert self._rows is not None
        return self._rows if plan.rows is None else self._rows[plan.rows]
