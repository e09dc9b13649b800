"""Parquet files, read with any installed library after their size is checked.

polars runs in a separate process, since a damaged file may make it panic or abort.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.columns.arrow import read_text
from mlp_xp._utils.columns.kinds import CodedColumn, RawColumn
from mlp_xp._utils.optional import pip_command
from mlp_xp.datasets._dataset import DatasetError
from mlp_xp.datasets._own_data.columns import drop_option

# A file may unpack to `_MAX_RATIO` times its size, or to `_MIN_LIMIT` bytes if that is more.
_MAX_RATIO, _MIN_LIMIT = 256, 32 << 20
_VALUE = 8  # The minimum number of bytes per value, also for text.
_SPACE = 4 << 30  # The address space for polars in bytes, in addition to eight times the limit.

# The polars process writes numbers and times as `.npy` files and other values as JSON, so nothing
# is unpickled. It writes equal texts once, since a file of 100 KB may contain 100 GB of them.
_CODE = """
import json, pathlib, sys

path, out = sys.argv[1], pathlib.Path(sys.argv[2])
limit, chosen, are_dropped = map(json.loads, sys.argv[3:])
try:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit[1], limit[1]))
    except (ImportError, OSError, ValueError):  # not on this system, or a lower limit is set
        pass
    import numpy as np
    import polars

    rows = polars.scan_parquet(path)
    names = rows.collect_schema()
    schema = {name: kind for name, kind in names.items() if (name in chosen) != are_dropped}
    for name, kind in schema.items():
        if kind.is_nested():
            (out / "nested.json").write_text(json.dumps([name, str(kind)]))
            raise ValueError("lists")
    n_rows = rows.select(polars.len()).collect().item()
    if n_rows * len(schema) > limit[0]:
        (out / "size.json").write_text(json.dumps([n_rows, len(schema)]))
        raise ValueError("its size")
    frame = rows.select(list(schema)).collect()
    for i, name in enumerate(schema):
        column = frame[name]
        if column.dtype in (polars.Categorical, polars.Enum):
            column = column.cast(polars.String)
        if column.dtype in (polars.String, polars.Binary):
            texts = column.drop_nulls().unique().sort()
            np.save(out / f"{i}.npy", column.rank("dense").fill_null(0).to_numpy())
            (out / f"{i}.json").write_text(json.dumps([None, *texts.to_list()], default=str))
            continue
        values = column.to_numpy()
        if values.dtype.kind in "biufmM":
            np.save(out / f"{i}.npy", values)
        else:
            (out / f"{i}.json").write_text(json.dumps(column.to_list(), default=str))
    read = {name: i for i, name in enumerate(schema)}
    (out / "names.json").write_text(json.dumps([[name, read.get(name)] for name in names]))
except BaseException as error:
    (out / "error.txt").write_text(str(error) or type(error).__name__, encoding="utf-8")
    sys.exit(1)
"""


def read_parquet(
    path: Path, chosen: Sequence[str] = (), *, are_dropped: bool = True
) -> dict[str, RawColumn]:
    """Read the columns of a Parquet file with pyarrow, polars or fastparquet.

    Text is coded; the kind of other columns is not determined here. Dates and times become text. If
    ``are_dropped`` is true, the ``chosen`` columns are dropped, otherwise all other columns.
    Dropped columns are empty.
    """
    for read in (_read_pyarrow, _read_polars, _read_fastparquet):
        with suppress(ImportError):
            found = read(path, chosen, are_dropped)
            return {str(name): _as_column(str(name), values) for name, values in found.items()}
    raise ImportError(
        f"{path} needs pyarrow, polars or fastparquet, and none is installed: type "
        f"{pip_command('pyarrow')}, or save the table as .csv"
    )


def _as_column(name: str, values: RawColumn | NDArray[Any]) -> RawColumn:
    """Return dates and times as text in one format for all libraries."""
    if isinstance(values, RawColumn):
        return values
    if values.dtype.kind not in "mM":
        return RawColumn(name, "number", values)
    known = ~np.isnat(values)
    distinct, codes = np.unique(values[known], return_inverse=True)
    places = np.full(len(values), -1, np.int32)
    places[known] = codes
    return CodedColumn(name, "text", places, categories=distinct.astype(str).tolist())


def _check_size(path: Path, n_rows: int, n_columns: int, n_bytes: int = 0) -> None:
    size = max(n_rows * n_columns * _VALUE, n_bytes)
    if size > _limit(path):
        raise DatasetError(
            f"{path} has {path.stat().st_size:,} bytes but unpacks to {size:,} or more ({n_rows:,} "
            f"rows of {n_columns:,} columns), which is implausible: if it is correct, save it as "
            ".csv"
        )


def _refuse_nested(path: Path, name: str, kind: str) -> NoReturn:
    raise DatasetError(
        f"{path}: {name!r} must contain numbers or text, got {kind}: write one column for each "
        f"value, or type {drop_option([name])}"
    )


def _limit(path: Path) -> int:
    return max(_MIN_LIMIT, _MAX_RATIO * path.stat().st_size)


def _read_pyarrow(path: Path, chosen: Sequence[str], are_dropped: bool) -> dict[str, Any]:
    parquet = importlib.import_module("pyarrow.parquet")
    file = parquet.ParquetFile(path)
    fields = [field for field in file.schema_arrow if (field.name in chosen) != are_dropped]
    for field in fields:
        if field.type.num_fields:
            _refuse_nested(path, field.name, str(field.type))
    groups = range(file.metadata.num_row_groups)
    n_bytes = sum(file.metadata.row_group(i).total_byte_size for i in groups)
    _check_size(path, file.metadata.num_rows, len(fields), n_bytes)
    names = [field.name for field in fields]
    texts = [field.name for field in fields if str(field.type).endswith(("string", "binary"))]
    table = parquet.ParquetFile(path, read_dictionary=texts).read(names)
    columns = {name: table[name] for name in names}
    del table  # Each column is freed as soon as it is converted.
    found: dict[str, Any] = {}
    for field in file.schema_arrow:
        read = columns.pop(field.name, None)
        found[field.name] = np.empty(0) if read is None else _of_arrow(field.name, read)
        del read
    if (arrow := sys.modules.get("pyarrow")) is not None:  # Its pool keeps freed memory.
        arrow.default_memory_pool().release_unused()
    return found


def _of_arrow(name: str, column: Any) -> RawColumn | NDArray[Any]:
    """Return the values of a column, or the codes of text."""
    if not hasattr(column.type, "value_type"):
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values
    return read_text(name, column)


def _read_fastparquet(path: Path, chosen: Sequence[str], are_dropped: bool) -> dict[str, Any]:
    file = importlib.import_module("fastparquet").ParquetFile(str(path))
    _check_size(path, file.count(), len(file.columns))
    frame = file.to_pandas()
    return {name: frame[name].to_numpy() for name in frame.columns}


def _read_polars(path: Path, chosen: Sequence[str], are_dropped: bool) -> dict[str, Any]:
    if importlib.util.find_spec("polars") is None:
        raise ImportError("polars is not installed")
    limit = _limit(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        limits = [limit // _VALUE, _SPACE + 8 * limit]
        arguments = [str(path), name, *map(json.dumps, (limits, chosen, are_dropped))]
        command = [sys.executable, "-P", "-c", _CODE, *arguments]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # Each thread needs address space.
        streams: Any = {"stdin": subprocess.DEVNULL, "capture_output": True}
        done = subprocess.run(command, env=environment, **streams)
        if done.returncode:
            for name, check in ("size", _check_size), ("nested", _refuse_nested):
                if (found := folder / f"{name}.json").exists():
                    check(path, *json.loads(found.read_text()))
            reason = folder / "error.txt"
            text = reason.read_text(encoding="utf-8") if reason.exists() else "polars aborted"
            # Rust aborts with this message on stderr.
            if text == "MemoryError" or b"memory allocation" in done.stderr:
                raise DatasetError(
                    f"{path} cannot be read (MemoryError: polars needs more than "
                    f"{limits[1] / 1e9:.1f} GB): split the file, or type {pip_command('pyarrow')}"
                )
            raise ValueError(text)
        names = json.loads((folder / "names.json").read_text())
        return {name: _column(name, folder / str(i)) for name, i in names}


def _column(name: str, path: Path) -> RawColumn | NDArray[Any]:
    """Return the values of a column that polars has written; a dropped column is empty."""
    numbers, texts = path.with_suffix(".npy"), path.with_suffix(".json")
    array: NDArray[Any] = np.load(numbers) if numbers.exists() else np.empty(0)
    if not texts.exists():
        return array
    values = json.loads(texts.read_text())
    if numbers.exists():  # The first value is None, for missing ones.
        codes = array.astype(np.int32) - 1
        return CodedColumn(name, "text", codes, categories=values[1:])
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return objects
