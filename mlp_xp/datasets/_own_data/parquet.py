"""Parquet files, read by the library that is installed; their size is checked first.

polars reads in another process: a damaged file makes it panic, with Rust's backtrace on stderr and
an exception that is no `Exception`, or abort the process.
"""

import importlib
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.optional import pip_command
from mlp_xp.datasets._dataset import DatasetError

# A file may unpack to this many times its size, and always to the second number of bytes.
_MAX_RATIO, _MIN_LIMIT = 256, 256 << 20
_VALUE = 8  # bytes at least, also of text
# Numbers and times travel as `.npy` files and other values as JSON: nothing is unpickled.
_CODE = """
import json, pathlib, sys

out = pathlib.Path(sys.argv[2])
try:
    import numpy as np
    import polars

    rows = polars.scan_parquet(sys.argv[1])
    n_rows, names = rows.select(polars.len()).collect().item(), rows.collect_schema().names()
    if n_rows * len(names) > int(sys.argv[3]):
        (out / "size.json").write_text(json.dumps([n_rows, len(names)]))
        raise ValueError("its size")
    frame = rows.collect()
    for i, name in enumerate(names):
        values = frame[name].to_numpy()
        if values.dtype.kind in "biufmM":
            np.save(out / f"{i}.npy", values)
        else:
            (out / f"{i}.json").write_text(json.dumps(frame[name].to_list(), default=str))
    (out / "names.json").write_text(json.dumps(names))
except BaseException as error:
    (out / "error.txt").write_text(str(error), encoding="utf-8")
    sys.exit(1)
"""


def read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    """Read the columns of a Parquet file by the first library that is installed.

    Dates and times are text, with None where they are missing.
    """
    for read in (_read_pyarrow, _read_polars, _read_fastparquet):
        with suppress(ImportError):
            return {str(name): _plain(values) for name, values in read(path).items()}
    raise ImportError(
        f"{path} needs pyarrow, polars or fastparquet, and none is installed: type "
        f"{pip_command('pyarrow')}, or save the table as .csv"
    )


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Return dates and times as text, which differs between libraries else."""
    if values.dtype.kind not in "mM":
        return values
    texts: NDArray[Any] = values.astype(str).astype(object)
    texts[np.isnat(values)] = None
    return texts


def _check_size(path: Path, n_rows: int, n_columns: int) -> None:
    size = n_rows * n_columns * _VALUE
    if size > _limit(path):
        raise DatasetError(
            f"{path} of {path.stat().st_size:,} bytes unpacks to {size:,} or more ({n_rows:,} rows "
            f"of {n_columns:,} columns), which is no data: save it with fewer rows or columns"
        )


def _limit(path: Path) -> int:
    return max(_MIN_LIMIT, _MAX_RATIO * path.stat().st_size)


def _read_pyarrow(path: Path) -> dict[str, NDArray[Any]]:
    file = importlib.import_module("pyarrow.parquet").ParquetFile(path)
    _check_size(path, file.metadata.num_rows, file.metadata.num_columns)
    table = file.read()
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def _read_fastparquet(path: Path) -> dict[str, NDArray[Any]]:
    file = importlib.import_module("fastparquet").ParquetFile(str(path))
    _check_size(path, file.count(), len(file.columns))
    frame = file.to_pandas()
    return {name: frame[name].to_numpy() for name in frame.columns}


def _read_polars(path: Path) -> dict[str, NDArray[Any]]:
    if importlib.util.find_spec("polars") is None:
        raise ImportError("polars")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-P", "-c", _CODE, str(path), name, str(_limit(path) // _VALUE)]
        if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode:
            if (size := folder / "size.json").exists():
                _check_size(path, *json.loads(size.read_text()))
            reason = folder / "error.txt"
            raise ValueError(
                reason.read_text(encoding="utf-8") if reason.exists() else "polars aborts"
            )
        names = json.loads((folder / "names.json").read_text())
        return {name: _column(folder / str(i)) for i, name in enumerate(names)}


def _column(path: Path) -> NDArray[Any]:
    if (numbers := path.with_suffix(".npy")).exists():
        array: NDArray[Any] = np.load(numbers)
        return array
    values = json.loads(path.with_suffix(".json").read_text())
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
