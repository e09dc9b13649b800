"""Tables of pyarrow that are read in blocks: Parquet files, frames of polars, and readers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlp_xp._utils.optional import optional
from mlp_xp.datasets.parquet import BUFFER_ROWS, Block, Parquet


def open_blocks(X: Any, target: str) -> tuple[list[Block], int]:
    """Return the blocks of a table, and the number of rows to shuffle together."""
    if isinstance(X, Parquet):
        return X.open_blocks(target), X.buffer_rows
    is_lazy = hasattr(X, "collect_batches")
    read = _read_lazy if is_lazy else _read_reader
    where = "the LazyFrame" if is_lazy else f"the reader of {X.__name__}"
    return [Block(where, lambda: read(X))], BUFFER_ROWS


def _read_lazy(X: Any) -> Iterator[Any]:
    for frame in X.collect_batches(maintain_order=True):
        if len(frame):
            yield frame.to_arrow()


def _read_reader(X: Any) -> Iterator[Any]:
    arrow, reader = optional("pyarrow", "parquet"), X()
    if not hasattr(reader, "__arrow_c_stream__"):
        raise TypeError(
            "X is a function, which must return an Arrow reader such as "
            f"pyarrow.RecordBatchReader each time, got {type(reader).__name__}."
        )
    for batch in arrow.RecordBatchReader.from_stream(reader):
        if batch.num_rows:
            yield arrow.Table.from_batches([batch])
