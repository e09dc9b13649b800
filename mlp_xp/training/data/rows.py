"""Row selection by position, from arrays of any library, sparse matrices and mapped files."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import sparse

from mlp_xp._utils.columns.table import ColumnTable
from mlp_xp._utils.dataclass import dataclass
from mlp_xp.backends import get_backend

# Below this array size, rows are copied (in a few milliseconds), so that training steps read
# contiguous memory.
_COPIED_BYTES = 1 << 23


@dataclass(frozen=True, eq=False)
class View:
    """Samples not stored as one array; ``x`` is an array with their library, device and dtype."""

    x: Any

    @property
    def dtype(self) -> Any:
        """The dtype of the samples."""
        return self.x.dtype


@dataclass(frozen=True, eq=False)
class Rows(View):
    """Rows of an array, stored as positions instead of a copy.

    ``shared`` is the array's `SharedData` if several fits use its rows.
    """

    rows: np.ndarray
    shared: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the selected rows as an array."""
        return (len(self.rows), *self.x.shape[1:])


@dataclass(frozen=True, eq=False)
class Shard(View):
    """The samples that this process stores.

    ``owned`` contains each sample's position in ``x``, or -1 if another process stores the sample.
    If this process stores no samples, ``x`` has a single, unused row.
    """

    owned: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array of all samples."""
        return (len(self.owned), *self.x.shape[1:])

    @property
    def mine(self) -> Any:
        """The rows of this process, in sample order; may be empty."""
        rows = self.owned[self.owned >= 0]
        return self.x[rows] if sparse.issparse(self.x) else Rows(self.x, rows)


class ReadAgain(View):
    """Samples of which memory holds only some, so that each epoch reads all of them again."""

    def take(self, rows: Any) -> np.ndarray:
        """Return rows, given as a slice or as ascending positions."""
        raise NotImplementedError

    def select(self, rows: np.ndarray) -> ReadAgain:
        """Return some of the samples, given as ascending positions, without reading them."""
        raise NotImplementedError


# The X, y and sample weights of a batch.
Triple = tuple[np.ndarray, np.ndarray, np.ndarray | None]


@dataclass(frozen=True, eq=False)
class Batches(ReadAgain):
    """Samples yielded in batches by an iterable, so that only one batch is in memory.

    ``x`` is the first batch, ``counts`` contains the number of samples per batch, and ``read()``
    yields the batches again, copied to the host.
    """

    counts: tuple[int, ...]
    read: Callable[[], Iterator[Triple]]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array of all samples."""
        return (sum(self.counts), *self.x.shape[1:])

    def take(self, rows: Any) -> np.ndarray:
        """Return the given rows, a slice or ascending positions."""
        positions, start, parts = np.arange(self.shape[0])[rows], 0, []
        for x, *_ in self.read():
            local = positions[(positions >= start) & (positions < start + x.shape[0])] - start
            parts.append(x[local])
            start += x.shape[0]
            if start > positions[-1]:
                break
        return np.concatenate(parts)


def take_rows(x: Any, rows: Any) -> Any:
    """Return rows as a dense array, or as a table; ``rows`` is a slice or an array of positions."""
    if isinstance(x, ReadAgain):
        return x.take(rows)
    if isinstance(x, Rows):
        return take_rows(x.x, x.rows[rows])
    if isinstance(x, ColumnTable):
        return x[rows]
    if sparse.issparse(x):
        return x[rows].toarray()
    if isinstance(rows, slice) or isinstance(x, np.ndarray):
        return x[rows, :] if x.ndim == 2 else x[rows]
    backend = get_backend(x)
    with backend.scope():
        return backend.xp.take(x, backend.put(rows), axis=0)


def kept_dtype(x: Any, dtype: str) -> str | None:
    """Return the dtype to convert data to before training, or None to keep integers.

    NumPy's signed integers and uint8 are kept, since every library can index such arrays.
    """
    if isinstance(x, View):
        return kept_dtype(x.x, dtype)
    if sparse.issparse(x):
        return dtype
    if isinstance(x, np.ndarray):
        stays = (x.dtype.kind == "i" or x.dtype == np.uint8) and x.dtype.isnative
        return None if stays else dtype
    # Do not call `array_namespace`, which compiles two functions for a JAX array.
    is_integer = get_backend(x).xp.isdtype(x.dtype, "integral")
    return None if is_integer else dtype


def some_rows(x: Any, rows: np.ndarray) -> Any:
    """Return some rows: a copy if x is sparse, a table or small, otherwise `Rows` or a `Shard`."""
    if isinstance(x, Shard):
        return Shard(x.x, x.owned[rows])
    if isinstance(x, ReadAgain):
        return x.select(rows)
    if isinstance(x, Rows) and x.shared is not None:
        return Rows(x.x, x.rows[rows], x.shared)
    # Sparse rows stay sparse, since a dense array may not fit into memory.
    if sparse.issparse(x) or isinstance(x, ColumnTable):
        return x[rows]
    n_bytes = getattr(x, "nbytes", 8 * math.prod(x.shape))
    return take_rows(x, rows) if n_bytes < _COPIED_BYTES else Rows(x, rows)


def is_mapped(x: Any) -> bool:
    """Whether an array is part of a memory-mapped file."""
    while isinstance(x, np.ndarray):
        x = x.base
    return isinstance(x, mmap.mmap)
