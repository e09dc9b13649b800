"""Training data, either resident on the device or streamed to it in batches.

Resident data are stored on the device, where each step selects its rows; integers keep their dtype.
Streamed data remain in host memory or in a memory-mapped file. Each batch is copied to the device
while the previous one is processed. Both placements give the same results.
"""

from __future__ import annotations

import itertools
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from scipy import sparse

from mlp_xp._utils.array_types import Array
from mlp_xp._utils.tree import leaves, rebuild
from mlp_xp.augmentation import Augmentation
from mlp_xp.backends import Backend, to_numpy
from mlp_xp.backends.kernels import SparseMatrix
from mlp_xp.nn.entries import denses
from mlp_xp.nn.network import Network, Params
from mlp_xp.training.data.epoch_plan import EpochPlan, plan_epoch
from mlp_xp.training.data.rows import Rows, Shard, is_mapped, kept_dtype, take_rows
from mlp_xp.training.step.inputs import Batch, Selection

Placement = Literal["auto", "resident", "streamed"]

_log = logging.getLogger(__name__)

# Resident data may use this fraction of the free memory. The rest is for parameters, optimizer
# state, gradients and activations.
_SHARE_OF_FREE_MEMORY = 0.8


class Data(ABC):
    """Training data, read once per epoch.

    ``rows`` are the samples' positions in x and y, or None for all rows. If the samples are divided
    among processes, ``owned`` contains each sample's local position, or -1 if another process
    stores the sample.
    """

    def __init__(
        self,
        backend: Backend,
        x: Any,
        y: Any,
        dtype: str,
        rows: np.ndarray | None = None,
        owned: np.ndarray | None = None,
    ) -> None:
        self._backend, self._dtype = backend, dtype
        self.x, self.y = x, y
        self._rows, self.owned = rows, owned
        known = rows if owned is None else owned
        self.n_samples: int = y.shape[0] if known is None else len(known)

    def plan(self, batch_size: int, **settings: Any) -> EpochPlan:
        """Return the plan of an epoch; see `plan_epoch`."""
        return plan_epoch(self.n_samples, batch_size, **settings)

    @abstractmethod
    def epoch(self, plan: EpochPlan) -> Generator[Batch]:
        """Yield the batches of a plan, on the device."""

    @abstractmethod
    def stacked(self, plans: Sequence[EpochPlan]) -> list[Batch]:
        """Return the epochs' batches, one stack per batch shape, or [] if unsupported."""


class Resident(Data):
    """Data on the device.

    Floating-point data are converted to ``dtype`` once; integers are not converted. ``x`` may be a
    sparse matrix (CSR) if the backend supports sparse matrix products.
    """

    def __init__(self, backend: Backend, x: Any, y: Any, dtype: str, *where: Any) -> None:
        if sparse.issparse(x):
            x = put_sparse(backend, x, dtype)
        else:
            x = backend.contiguous(backend.put(x, kept_dtype(x, dtype)))
        super().__init__(backend, x, backend.put(y), dtype, *where)

    def epoch(self, plan: EpochPlan) -> Generator[Batch]:
        """Yield a plan's batches as positions in the data."""
        for selection in selections(self._backend, _at(plan, self._rows), self._dtype):
            yield Batch(self.x, self.y, selection)

    def stacked(self, plans: Sequence[EpochPlan]) -> list[Batch]:
        """Return one stack of all full batches, and one of the shorter last batches."""
        plans = [_at(plan, self._rows) for plan in plans]
        if plans[0].rows is None:
            return []
        stacks = _stacks(self._backend, plans, self._dtype)
        return [Batch(self.x, self.y, selection) for _, selection in stacks]


class Streamed(Data):
    """Data in host memory or in a memory-mapped file.

    Floating-point batches are converted to ``dtype`` before they are copied to the device.
    """

    _is_told = False

    def epoch(self, plan: EpochPlan) -> Generator[Batch]:
        """Yield the rows of each batch in a plan."""
        plan = _at(plan, self._rows)
        batches = self._backend.feed(self._gather(plan))
        steps = selections(self._backend, plan._replace(rows=None), self._dtype)
        for (x, y), selection in zip(batches, steps, strict=True):
            yield Batch(x, y, selection)

    def stacked(self, plans: Sequence[EpochPlan]) -> list[Batch]:
        """Return no stacks, since batches arrive one by one."""
        if not self._is_told and not self._backend.shares_host_memory:
            self._is_told = True
            _log.info("Training steps run one by one, as their batches are streamed from the host.")
        return []

    def _gather(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, ...]]:
        dtype = kept_dtype(self.x, self._dtype) or self.x.dtype
        for start in range(0, len(plan.counts) * plan.batch_size, plan.batch_size):
            rows = slice(None) if plan.rows is None else plan.rows[start : start + plan.batch_size]
            yield take_rows(self.x, rows).astype(dtype, copy=False), self.y[rows]


def multiplies_sparse(
    backend: Backend, network: Network, scaling: Any, augmentation: Sequence[Augmentation]
) -> bool:
    """Whether the first layer can multiply sparse rows without converting them to dense rows."""
    is_plain = scaling is None and not augmentation
    return backend.has_sparse_products and network.takes_sparse and is_plain


def count_work(data: Data, params: Params, n_rows: int) -> tuple[int, int, int]:
    """Count the multiplications of a forward pass.

    Return the total, the number in a sparse first layer, and the size of the largest parameter.
    """
    n_sparse = math.prod(denses(params)[0].W.shape) if isinstance(data.x, SparseMatrix) else 0
    sizes = [math.prod(leaf.shape) for leaf in leaves(params)]
    return n_rows * sum(sizes), n_rows * n_sparse, max(sizes)


def put_sparse(backend: Backend, x: Any, dtype: str, rows: slice = slice(None)) -> SparseMatrix:
    """Copy a sparse matrix (CSR), or a slice of its rows, to the device."""
    start, stop, _ = rows.indices(x.shape[0])
    indptr = x.indptr[start : stop + 1]
    first, last = indptr[0], indptr[-1]
    # SciPy's kernels require that `indices` and `indptr` have the same dtype.
    data, indices = x.data[first:last], x.indices[first:last].astype(indptr.dtype, copy=False)
    indptr = indptr - first if first else indptr
    return SparseMatrix(backend.put(data, dtype), backend.put(indices), backend.put(indptr))


def put_data(
    backend: Backend,
    x: Any,
    y: Any,
    dtype: str,
    placement: Placement = "auto",
    *,
    multiplies_sparse: bool = False,
) -> Resident | Streamed:
    """Choose between resident and streamed data.

    With "auto", host data become resident if they fit into 80 % of the device's free memory; data
    already on the device stay there. A memory-mapped file is streamed if it must be converted or
    its rows are not contiguous. Sparse rows are streamed and converted to dense rows batch by
    batch, unless ``multiplies_sparse`` is true. ``x`` may be `Rows` or a `Shard`. For a `Shard`,
    ``y`` contains the targets of all samples.
    """
    if placement not in ("auto", "resident", "streamed"):
        raise ValueError(
            f"`placement` must be 'auto', 'resident' or 'streamed', got {placement!r}."
        )
    owned = None
    if isinstance(x, Shard):
        given, owned, x = to_numpy(y), x.owned, x.x
        y = np.zeros((x.shape[0], *given.shape[1:]), given.dtype)
        y[owned[owned >= 0]] = given[owned >= 0]
    rows = shared = None
    if isinstance(x, Rows):
        x, rows, shared = x.x, x.rows.astype(np.int32), x.shared
        targets, y = to_numpy(y), np.zeros((x.shape[0], *y.shape[1:]), to_numpy(y).dtype)
        y[rows] = targets
    is_sparse = sparse.issparse(x)
    if is_sparse and not multiplies_sparse:
        return Streamed(backend, x, to_numpy(y), dtype, None, owned)
    if placement == "auto":
        is_there = backend.shares_host_memory or (not is_sparse and backend.holds(x))
        free = None if is_there else backend.free_memory()
        # Estimate 8 bytes per element or position, since the Array API has no `nbytes`.
        n_bytes = 16 * x.nnz if is_sparse else getattr(x, "nbytes", 8 * math.prod(x.shape))
        fits = free is None or n_bytes <= _SHARE_OF_FREE_MEMORY * free
        if is_mapped(x):
            fits = fits and kept_dtype(x, dtype) in (None, x.dtype) and x.flags.c_contiguous
        placement = "resident" if fits else "streamed"
    if placement == "resident" and shared is not None:
        placed: Resident = shared.put(backend, targets, dtype, rows)
        return placed
    if placement == "resident":
        return Resident(backend, x, y, dtype, rows, owned)
    host = x if is_sparse else to_numpy(x)
    return Streamed(backend, host, to_numpy(y), dtype, rows, owned)


def _at(plan: EpochPlan, rows: np.ndarray | None) -> EpochPlan:
    """Return a plan whose positions refer to the whole data set."""
    if rows is None:
        return plan
    return plan._replace(rows=rows if plan.rows is None else rows[plan.rows])


def _stacks(
    backend: Backend, plans: Sequence[EpochPlan], dtype: str
) -> list[tuple[range, Selection]]:
    """Return the selections of each epoch's full batches and shorter last batch, on the device.

    The first axis is for the steps of all epochs; each range covers the steps of one epoch.
    """
    plan, size, n_steps = plans[0], plans[0].batch_size, len(plans[0].counts)
    given: Any = [(plan.rows, plan.weights, plan.draws, plan.positions) for plan in plans]
    n_full = min(
        (len(leaf) // size for leaf in leaves(given[0]) if leaf is not None), default=n_steps
    )

    def stack(steps: range) -> Selection:
        rows = slice(steps.start * size, steps.stop * size)

        def put(*of_epochs: np.ndarray | None) -> Array | None:
            found = [values[rows] for values in of_epochs if values is not None]
            if not found:
                return None
            values = found[0] if len(found) == 1 else np.concatenate(found)
            values = values.reshape((len(found) * len(steps), -1, *values.shape[1:]))
            return backend.put(values, dtype if values.dtype.kind == "f" else None)

        part = None
        if plan.parts is not None:
            part = backend.put(plan.parts[steps.start : steps.stop], dtype)
        picked = rebuild(given[0], map(put, *map(leaves, given)))
        return Selection(*picked)._replace(part=part)

    return [(steps, stack(steps)) for steps in (range(n_full), range(n_full, n_steps)) if steps]


def selections(backend: Backend, plan: EpochPlan, dtype: str) -> Iterator[Selection]:
    """Copy an epoch's selections to the device in one transfer, and yield each step's selection."""
    for steps, stacked in _stacks(backend, [plan], dtype):
        columns = [
            itertools.repeat(None) if leaf is None else backend.unstack(leaf)
            for leaf in leaves(stacked)
        ]
        for _, *entries in zip(steps, *columns, strict=False):
            yield rebuild(stacked, entries)
