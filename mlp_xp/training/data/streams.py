"""Rows of a table that does not fit into memory: read in blocks, and shuffled through a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from mlp_xp._utils.dataclass import dataclass
from mlp_xp._utils.signals.forks import cached_property
from mlp_xp.backends import Backend
from mlp_xp.training.data.epoch_plan import EpochPlan, plan_epoch
from mlp_xp.training.data.placement import Streamed
from mlp_xp.training.data.rows import ReadAgain, kept_dtype

_HASHED = 1 << 20  # The number of rows that are hashed at once.


@dataclass(frozen=True, eq=False)
class Stream(ReadAgain):
    """Rows that are read in blocks, such as a table's row groups.

    ``x`` is a matrix of some of the rows. ``sizes`` are the blocks' numbers of rows, and
    ``read(block)`` yields the rows of a block in order, as matrices. Up to ``buffer_rows`` rows are
    shuffled together. ``rows`` are ascending positions of the rows to use, or None for all rows.
    """

    sizes: tuple[int, ...]
    read: Callable[[int], Iterator[np.ndarray]]
    buffer_rows: int
    rows: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a matrix of the rows."""
        return int(self.firsts[-1]), self.x.shape[1]

    @cached_property
    def starts(self) -> np.ndarray:
        """The position of each block's first row in the table, then the number of rows."""
        return np.concatenate([[0], np.cumsum(self.sizes)])

    @cached_property
    def firsts(self) -> np.ndarray:
        """The number of used rows before each block, then the number of used rows."""
        return self.starts if self.rows is None else np.searchsorted(self.rows, self.starts)

    def select(self, rows: np.ndarray) -> Stream:
        """Return some of the rows, given as ascending positions."""
        return replace(self, rows=self.places(rows))

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions of used rows in the table."""
        return rows if self.rows is None else self.rows[rows]

    def take(self, rows: Any) -> np.ndarray:
        """Return rows as a matrix, given as a slice or as ascending positions."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))
        return BlockReader(self).load(rows)

    def hold_out(self, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of the other rows, and of about a fraction chosen by their hash."""
        n = self.shape[0]
        parts = [np.arange(i, min(i + _HASHED, n)) for i in range(0, n, _HASHED)]
        bound = np.uint64(min(fraction, self.buffer_rows / n) * 2.0**63)
        is_held = np.concatenate([_hashes(part, seed) >> np.uint64(1) < bound for part in parts])
        return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _hashes(rows: np.ndarray, seed: int) -> np.ndarray:
    """Return a hash of each row's number.

    SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
    """
    x = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


class BlockReader:
    """A reader that continues in the block in which it stopped."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._block = stream, -1
        self._pieces: Iterator[np.ndarray] = iter(())
        self._piece, self._start = stream.x[:0], 0
        self.is_stopped = False

    def load(self, rows: np.ndarray) -> np.ndarray:
        """Return used rows as a matrix, in the order of their positions."""
        order = np.argsort(rows, kind="stable")
        ascending, firsts = rows[order], self._stream.firsts
        x = np.empty((len(rows), self._stream.x.shape[1]), self._stream.x.dtype)
        cuts = np.searchsorted(ascending, firsts)
        blocks = [block for block, (start, stop) in enumerate(pairwise(cuts)) if start < stop]

        # Finish the open block first, and stop in the block that the next call needs, too.
        def turn(block: int) -> tuple[bool, bool]:
            return block != self._block, ascending[cuts[block + 1] - 1] < firsts[block + 1] - 1

        for block in sorted(blocks, key=turn):
            part = slice(cuts[block], cuts[block + 1])
            self._read(block, self._stream.places(ascending[part]), x, order[part])
        return x

    def _read(self, block: int, rows: np.ndarray, x: np.ndarray, targets: np.ndarray) -> None:
        """Write rows of a block, given as positions in the table, to the target rows of x."""
        if block != self._block or rows[0] < self._start:
            self._block, self._start = block, int(self._stream.starts[block])
            self._pieces, self._piece = self._stream.read(block), self._stream.x[:0]
        done = 0
        while done < len(rows):
            while rows[done] >= self._start + len(self._piece):
                if self.is_stopped:
                    return
                self._start += len(self._piece)
                self._piece = next(self._pieces)
            stop = int(np.searchsorted(rows, self._start + len(self._piece)))
            x[targets[done:stop]] = self._piece[rows[done:stop] - self._start]
            done = stop


class StreamedRows(Streamed):
    """Batches of a `Stream`, which a thread reads ahead, one buffer at a time."""

    def __init__(self, backend: Backend, stream: Stream, y: np.ndarray, dtype: str) -> None:
        super().__init__(backend, stream, y, dtype)

    def plan(self, batch_size: int, **settings: Any) -> EpochPlan:
        """Return the plan of an epoch, which visits the blocks in random order."""
        n_buffer = self._buffer(min(batch_size, self.n_samples))

        def order(generator: np.random.Generator) -> np.ndarray:
            firsts = self.x.firsts.astype(np.int32)
            blocks = generator.permutation(len(firsts) - 1)
            rows = np.concatenate([np.arange(firsts[i], firsts[i + 1]) for i in blocks])
            for start in range(0, len(rows), n_buffer):
                generator.shuffle(rows[start : start + n_buffer])
            return rows

        plan = plan_epoch(self.n_samples, batch_size, order=order, **settings)
        if plan.rows is not None:  # Padding must not need another block.
            plan.rows[self.n_samples :] = plan.rows[self.n_samples - 1]
        return plan

    def _buffer(self, batch_size: int) -> int:
        """Return the number of rows in a buffer, which has whole batches."""
        return max(1, self.x.buffer_rows // batch_size) * batch_size

    def _gather(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, ...]]:
        dtype = kept_dtype(self.x, self._dtype) or self.x.dtype
        rows = np.arange(self.n_samples) if plan.rows is None else plan.rows
        size, n_buffer = plan.batch_size, self._buffer(plan.batch_size)
        n_done = (-(-self.n_samples // size) - len(plan.counts)) * size
        edges = sorted({0, len(rows), *range(-n_done % n_buffer, len(rows), n_buffer)})
        reader, buffers = BlockReader(self.x), [rows[a:b] for a, b in pairwise(edges)]
        with ThreadPoolExecutor(1, thread_name_prefix="mlp_xp-read") as pool:
            try:
                pending = pool.submit(reader.load, buffers[0])
                for i, buffer in enumerate(buffers):
                    x = pending.result()
                    if i + 1 < len(buffers):
                        pending = pool.submit(reader.load, buffers[i + 1])
                    for start in range(0, len(buffer), size):
                        part = slice(start, start + size)
                        yield x[part].astype(dtype, copy=False), self.y[buffer[part]]
            finally:
                reader.is_stopped = True
