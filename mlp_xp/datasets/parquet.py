"""Parquet files that are read in parts, since all of them do not fit into memory."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp._utils.names import error_end, list_names
from mlp_xp._utils.optional import optional
from mlp_xp.datasets._dataset import DatasetError

BUFFER_ROWS = 262_144  # The default number of rows that are shuffled together.
_PIECE = 65_536  # The number of rows that are decoded at once.


class Block(NamedTuple):
    """Rows that are read in one go: ``read()`` yields tables of pyarrow; ``where`` names them."""

    where: str
    read: Callable[[], Iterator[Any]]

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Prefix errors with the name of the rows."""
        try:
            yield
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{self.where}: {error}") from error


class Parquet:
    """A table in Parquet files, of which a few row groups are read at a time.

    Pass it to `fit` as X, and the name of the target's column as y. Only the targets, held-out rows
    and a buffer of rows are kept in memory. Predictions and scores read it in parts, too.

    Parameters
    ----------
    path : str or path-like
        A file, a pattern such as ``"data/*.parquet"``, or a folder, which is searched with its
        subfolders. Folders such as ``year=2026`` add the column ``year``.
    columns : list of str, optional
        The columns to use as inputs; by default all except the target.
    filters : pyarrow.dataset.Expression or list, optional
        The rows to use, e.g. ``[("year", ">", 2020)]``, as in `pyarrow.parquet.read_table`.
    buffer_rows : int of at least 1, default=262144
        The number of rows that are shuffled together. Each epoch reads the row groups in a random
        order, and shuffles the rows of the buffer. A second buffer is read at the same time.

    Raises
    ------
    DatasetError
        A ValueError, when the files are read: if there are none, or a file is damaged, changes, is
        removed, or has other columns or types than the first. The error names the file.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.datasets import Parquet
    >>> data = Parquet("data/*.parquet", filters=[("year", ">", 2020)])
    >>> model = MLPClassifier().fit(data, "animal")  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        filters: Any = None,
        buffer_rows: int = BUFFER_ROWS,
    ) -> None:
        if isinstance(columns, str):
            raise TypeError(f"`columns` must be a list of names, got the text {columns!r}.")
        if not isinstance(buffer_rows, int) or buffer_rows < 1:
            raise ValueError(f"`buffer_rows` must be an integer of at least 1, got {buffer_rows}.")
        self.path, self.filters, self.buffer_rows = os.fspath(path), filters, buffer_rows
        self.columns = None if columns is None else list(columns)

    def __repr__(self) -> str:
        return f"Parquet({self.path!r})"

    def find_files(self) -> list[str]:
        """Return the paths of the files, in the order in which they are counted."""
        path = Path(self.path)
        found = [self.path]
        if path.is_dir():
            every = (file.relative_to(path) for file in path.rglob("*.parquet"))
            shown = (file for file in every if not any(p[0] in "._" for p in file.parts))
            found = [os.fspath(path / file) for file in shown]
        elif not path.exists():
            found = [file for file in glob.glob(self.path, recursive=True) if Path(file).is_file()]
        if not found:
            raise DatasetError(
                f"There is no Parquet file at {self.path}: pass a file, a folder, or a pattern "
                "such as 'data/*.parquet'."
            )
        return sorted(found)

    def open_blocks(
        self, target: str | None = None, inputs: Collection[str] | None = None
    ) -> list[Block]:
        """Check the columns of all files, and return their row groups.

        The blocks have the target and, of the other columns, those in ``inputs``, by default all.
        """
        dataset, parquet = (
            optional(f"pyarrow.{name}", "parquet") for name in ("dataset", "parquet")
        )
        files = self.find_files()
        for file in files:  # pyarrow's own errors do not name the file.
            with _naming(file):
                parquet.read_schema(file)
        base = self.path if Path(self.path).is_dir() else None
        settings = {"partitioning": "hive", "partition_base_dir": base}
        tables = dataset.dataset(files, format="parquet", **settings)
        fragments = list(tables.get_fragments())
        seen = {fragment.path: _state(fragment.path) for fragment in fragments}
        schema = _unite(tables.schema, fragments)
        names = self._names(schema.names, target, inputs)
        condition = self._condition()
        blocks = []
        for fragment in fragments:
            with _naming(fragment.path):
                groups = fragment.split_by_row_group(filter=condition, schema=schema)
            for group in groups:
                where = f"{fragment.path}, row group {group.row_groups[0].id}"
                blocks.append(
                    Block(where, _Group(group, where, schema, names, condition, seen).read)
                )
        return blocks

    def _names(
        self, known: Sequence[str], target: str | None, inputs: Collection[str] | None
    ) -> list[str]:
        """Return the columns to read; raise DatasetError if one is missing."""
        targets = [] if target is None else [target]
        names = [*dict.fromkeys([*(known if self.columns is None else self.columns), *targets])]
        for name in names:
            if name not in known:
                end, shown = error_end(name, known), list_names(known)
                raise DatasetError(f"{self.path} has no column {name!r}{end} It has {shown}.")
        return choose_names(names, None if inputs is None else {*inputs, *targets})

    def _condition(self) -> Any:
        if isinstance(self.filters, list | tuple):
            return optional("pyarrow.parquet", "parquet").filters_to_expression(self.filters)
        return self.filters


class _Group(NamedTuple):
    """A row group of a file, and what to read of it."""

    fragment: Any
    where: str
    schema: Any
    names: list[str]
    condition: Any
    seen: dict[str, tuple[int, int]]

    def read(self) -> Iterator[Any]:
        """Yield the row group as tables; raise DatasetError if the file has changed."""
        arrow = optional("pyarrow", "parquet")
        settings = {"columns": self.names, "filter": self.condition, "batch_size": _PIECE}
        self._check()
        with _naming(self.where):
            batches = self.fragment.to_batches(schema=self.schema, **settings, batch_readahead=1)
        while True:
            with _naming(self.where):
                batch = next(batches, None)
            self._check()
            if batch is None:
                return
            if batch.num_rows:
                yield arrow.Table.from_batches([batch])

    def _check(self) -> None:
        path = self.fragment.path
        try:
            is_same = _state(path) == self.seen[path]
        except FileNotFoundError as error:
            raise DatasetError(
                f"{path} was removed while it was read: fit again without it, or restore it."
            ) from error
        if not is_same:
            raise DatasetError(
                f"{path} has changed while it was read: fit again when it is complete."
            )


def choose_names(names: Sequence[str], wanted: Collection[str] | None) -> list[str]:
    """Return the wanted names in order, or all if none is wanted or ``wanted`` is None."""
    return [name for name in names if wanted is None or name in wanted] or list(names)


def _state(path: str) -> tuple[int, int]:
    """Return the size of a file and the time of its last change."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Raise pyarrow's errors as DatasetError, with the name of the file."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, DatasetError):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetError(f"{where} cannot be read: {reason}. Write it again.") from error


def _unite(schema: Any, fragments: Sequence[Any]) -> Any:
    """Return the columns of all files; raise DatasetError if they differ from the first file's.

    A column without values has no type in some files: it gets the type of the others.
    """
    first, *others = ((file.path, file.physical_schema) for file in fragments)
    for path, found in others:
        missing = [name for name in first[1].names if name not in found.names]
        new = [name for name in found.names if name not in first[1].names]
        for what, names in (("lacks the columns", missing), ("has the further columns", new)):
            if names:
                raise DatasetError(
                    f"{path} {what} {list_names(names)}, unlike {first[0]}: choose files with "
                    "the same columns."
                )
        for field in found:
            place = schema.get_field_index(field.name)
            known = schema.field(place)
            if _name(known) == "null":
                schema = schema.set(place, field)
            elif _name(field) not in (_name(known), "null"):
                raise DatasetError(
                    f"{path} has {field.type} in column {field.name!r}, but {first[0]} has "
                    f"{known.type}: convert the column to the same type in all files."
                )
    return schema


def _name(field: Any) -> str:
    """Return the name of a column's type; text has the same name with any size of offsets."""
    return str(field.type).removeprefix("large_")
