"""Training data yielded in batches by the caller's iterable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np

from mlp_xp.backends import Backend
from mlp_xp.training.data.epoch_plan import EpochPlan
from mlp_xp.training.data.placement import Streamed, selections
from mlp_xp.training.data.rows import Batches, Triple, kept_dtype
from mlp_xp.training.step.inputs import Batch


class StreamedBatches(Streamed):
    """Batches used unchanged, in the iterable's order.

    ``read()`` yields each batch with encoded targets. If batches before the last differ in size, or
    if the backend compiles a step for each shape, all batches are padded with rows of weight 0.
    """

    def __init__(
        self,
        backend: Backend,
        batches: Batches,
        read: Callable[[], Iterator[Triple]],
        dtype: str,
        *,
        has_weights: bool,
    ) -> None:
        super().__init__(backend, None, np.empty(batches.shape[0]), dtype)
        self._counts, self._read, self._has_weights = batches.counts, read, has_weights

    def plan(self, batch_size: int, **settings: Any) -> EpochPlan:
        """Return an epoch's plan, with the sums of weights from the first pass."""
        counts, weights = np.asarray(self._counts), settings["weights"]
        size, rows = int(max(counts)), np.arange(sum(counts), dtype=np.int32)
        if settings["pad"] or np.any(counts[:-1] < size):
            is_real = np.arange(size) < counts[:, None]
            filled = np.zeros(is_real.shape, dtype=np.int32)
            filled[is_real] = rows
            rows = filled.reshape(-1)
        totals = counts if weights is None else np.add.reduceat(weights, np.cumsum(counts) - counts)
        return EpochPlan(rows, None, size, counts.tolist(), totals.astype(float).tolist())

    def epoch(self, plan: EpochPlan) -> Generator[Batch]:
        """Yield a plan's batches; the plan may skip the iterable's first batches."""
        assert plan.rows is not None
        size = plan.batch_size
        is_filled = len(plan.rows) == len(plan.counts) * size
        has_weights = self._has_weights or (is_filled and min(self._counts) < size)

        def rows(batch: Triple) -> tuple[np.ndarray, ...]:
            x, y, weights = batch
            dtype = kept_dtype(x, self._dtype) or x.dtype
            arrays = [x.astype(dtype, copy=False), y]
            if has_weights:
                given = np.ones(len(y)) if weights is None else weights
                arrays.append(given.astype(self._dtype))
            if is_filled and len(y) < size:
                arrays = [_filled(array, size) for array in arrays]
            return tuple(arrays)

        first = len(self._counts) - len(plan.counts)
        batches = self._backend.feed(map(rows, itertools.islice(self._read(), first, None)))
        steps = selections(self._backend, plan._replace(rows=None), self._dtype)
        for (x, y, *weights), selection in zip(batches, steps, strict=True):
            yield Batch(x, y, selection._replace(weights=weights[0] if weights else None))


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    """Pad an array with rows of zeros to ``size`` rows."""
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])
