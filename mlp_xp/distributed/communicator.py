"""The interface through which ranks communicate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:  # Only the MPI engine imports this module.
    from mlp_xp.distributed._shared_memory import SharedMemory

T = TypeVar("T")

# Arrays smaller than this, in bytes, share one sum, since even a short sum takes about 10 us.
_SHORT = 1 << 14
# Arrays of at least this many bytes are summed one by one, since a sum then takes longer than
# starting it. Shorter arrays are summed together.
LONG_BYTES = 1 << 16


class RankError(RuntimeError):
    """An error on another rank; the message contains the rank."""


class LostRankError(RankError):
    """Raised if another rank has ended or is unreachable; that rank's error says why."""


class Communicator(ABC):
    """The ranks of one fit: processes with the same state, each of which computes part of a batch.

    All ranks call the same methods in the same order. ``n_machines`` is 1 if unknown; ``n_shards``
    is the number of virtual shards per rank, or 0 unless sums have a fixed order. ``machine`` is
    the shared memory of all ranks, or None. If it is set, `start_sum` may return a `SharedSum` for
    an array from `empty`.
    """

    rank: int
    size: int
    n_machines: int = 1
    n_shards: int = 0
    machine: SharedMemory | None = None

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Allocate an array that is summed repeatedly, in memory that may speed up sums."""
        return np.empty(shape, dtype)

    @abstractmethod
    def sum(self, arrays: Sequence[np.ndarray]) -> None:
        """Sum arrays over all ranks in place; results are bitwise identical on every rank."""

    def start_sum(self, array: np.ndarray) -> Callable[[], None]:
        """Start summing one array as in `sum`, and return a function that waits for the result."""
        self.sum([array])
        return lambda: None

    @abstractmethod
    def broadcast(self, value: T, root: int = 0) -> T:
        """Return one rank's object on all ranks."""

    @abstractmethod
    def gather(self, value: T) -> list[T]:
        """Return all ranks' objects, in rank order, on every rank."""

    def gather_arrays(self, array: np.ndarray) -> list[np.ndarray]:
        """Return all ranks' arrays, which must have equal shapes, in rank order, on every rank."""
        return self.gather(array)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.gather(None)

    @abstractmethod
    def abort(self, code: int = 1) -> None:
        """Stop the processes of all ranks at once, without returning."""


def sum_packed(
    arrays: Sequence[np.ndarray],
    start_sum: Callable[[np.ndarray], Callable[[], None]],
    sum_now: Callable[[np.ndarray], object],
) -> None:
    """Sum long arrays with ``start_sum``, and short arrays together with ``sum_now``."""
    waits = [start_sum(array) for array in arrays if array.nbytes >= _SHORT]
    short = [array for array in arrays if array.nbytes < _SHORT]
    if short:
        packed = np.concatenate([array.reshape(-1) for array in short])
        sum_now(packed)
        start = 0
        for array in short:
            array[...] = packed[start : start + array.size].reshape(array.shape)
            start += array.size
    for wait in waits:
        wait()
