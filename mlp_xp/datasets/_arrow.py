"""Tables of pyarrow that are read in blocks: Parquet files, frames of polars, and readers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from mlp_xp._utils.optional import optional
from mlp_xp.datasets.parquet import BUFFER_ROWS, Block, Parquet, choose_names


def open_blocks(
    X: Any, target: str | None = None, inputs: Collection[str] | None = None
) -> tuple[list[Block], int]:
    """Return the blocks of a table, and the number of rows to shuffle together.

    The blocks have the target and, of the other columns, those in ``inputs``, by default all.
    """
    if isinstance(X, Parquet):
        return X.open_blocks(target, inputs), X.buffer_rows
    is_lazy = hasattr(X, "collect_batches")
    read = _read_lazy if is_lazy else _read_reader
    where = "the LazyFrame" if is_lazy else f"the reader of {X.__name__}"
    wanted = None if inputs is None else {*inputs, target}
    return [Block(where, lambda: read(X, wanted))], BUFFER_ROWS


def _read_lazy(X: Any, wanted: Collection[Any] | None) -> Iterator[Any]:
    frames = X.select(choose_names(X.collect_schema().names(), wanted))
    for frame in frames.collect_batches(maintain_order=True):
        if len(frame):
            yield frame.to_arrow()


def _read_reader(X: Any, wanted: Collection[Any] | None) -> Iterator[Any]:
    arrow, reader = optional("pyarrow", "parquet"), X()
    if not hasattr(reader, "__arrow_c_stream__"):
        raise TypeError(
            "X is a function, which must return an Arrow reader such as "
            f"pyarrow.RecordBatchReader each time, got {type(reader).__name__}."
        )
    for batch in arrow.RecordBatchReader.from_stream(reader):
        if batch.num_rows:
            table = arrow.Table.from_batches([batch])
            yield table.select(choose_names(table.column_names, wanted))


def write_tables(path: Path, tables: Iterable[Any]) -> int:
    """Write tables of pyarrow to one Parquet file, and return its number of rows.

    All tables get the types of the first one.
    """
    parquet, writer, n_rows = optional("pyarrow.parquet", "parquet"), None, 0
    try:
        for table in tables:
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
            n_rows += len(table)
    finally:
        if writer is not None:
            writer.close()
    return n_rows
