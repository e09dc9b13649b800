"""Tables of the user's own: CSV, NPZ and Parquet files, a sample in each row."""

import csv
import importlib
import math
import zipfile
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.files import open_file
from mlp_xp._utils.optional import pip_command
from mlp_xp.datasets._dataset import DatasetError
from mlp_xp.datasets._parquet import read_polars

_TARGETS = ("target", "label", "class", "y")  # What the column to predict may be called.
_ARRAYS = ("X", "x", "data", "features", "images")
_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
_DELIMITERS = ",;\t|"
# A member of an NPZ file may unpack to this many times its size, and always to the second number.
_MAX_RATIO, _MIN_LIMIT = 64, 256 << 20


class Table(NamedTuple):
    """The rows of a file.

    Attributes
    ----------
    names : tuple of str
        Of the features.
    x : (samples, features) array of numbers
    y : (samples,) array or None
        Text, or numbers; None where the file has no such column.
    target : str
        The name of that column.
    """

    names: tuple[str, ...]
    x: NDArray[Any]
    y: NDArray[Any] | None
    target: str


def read_table(
    path: Path, target: str | None = None, features: Sequence[str] | None = None
) -> Table:
    """Read a table.

    Parameters
    ----------
    path : Path
        ``.csv`` (a line of names is recognized), ``.npz`` (arrays ``X`` and ``y``) or ``.parquet``.
    target : str, optional
        The column to predict. Default: the one called target, label, class or y, else the last.
    features : sequence of str, optional
        The columns to read for a model that is there, and no target. Default: all but the target.

    Raises
    ------
    DatasetError
        The file is damaged, holds text or nothing where a number is expected, or lacks a column;
        the message says where.
    ImportError
        No library is installed that reads Parquet.
    """
    try:
        open_file(path).close()
        return _READERS[path.suffix.lower()](path, target, features)
    except (DatasetError, ImportError):
        raise
    except MemoryError as error:
        raise DatasetError(f"{path} needs more memory than there is: split the file") from error
    except Exception as error:  # Hostile bytes can raise anything.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        cure = f"check that it is there, and a {path.suffix} file"
        if isinstance(error, UnicodeDecodeError):
            cure = "save it as UTF-8"
        raise DatasetError(
            f"{path} cannot be read ({reason or type(error).__name__}): {cure}"
        ) from error


class _Choice(NamedTuple):
    """The columns to read: positions of features, and that of the target if there is one."""

    features: list[int]
    target: int | None


def _choose(
    path: Path, names: list[str], target: str | None, features: Sequence[str] | None
) -> _Choice:
    """Return which columns are features and which is the target."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DatasetError(f"{path} has {count} columns {name!r}: rename all but one")
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    if features is None:
        if target is None:
            target = next((name for name in names if name.lower() in _TARGETS), names[-1])
        elif target not in names:
            raise DatasetError(f"{path} has no column {target!r} to predict; it has {shown}")
        features = [name for name in names if name not in (target, "")]
    where = {name: position for position, name in enumerate(names)}
    if absent := [name for name in features if name not in where]:
        raise DatasetError(
            f"{path} has no column {absent[0]!r}, which the network was trained with; it has "
            f"{shown}"
        )
    if not features:
        raise DatasetError(f"{path} has the column {target!r} alone: expected features beside it")
    return _Choice([where[name] for name in features], None if target is None else where[target])


def _read_csv(path: Path, target: str | None, features: Sequence[str] | None) -> Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        first_line = file.readline(1 << 20)
        file.seek(0)
        delimiter = max(_DELIMITERS, key=first_line.count)
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        first = next(rows, [])
        if not first:
            raise DatasetError(f"{path} is empty: expected a line of names, and a sample a line")
        has_names = all(math.isnan(_number(name)) for name in first) or any(
            name.strip().lower() in ("target", "label", "class") for name in first
        )
        names = [name.strip() for name in first] if has_names else _numbered(len(first))
        choice = _choose(path, names, target, features)
        x, y = array("d"), []
        for row in rows if has_names else chain([first], rows):
            if not row:
                continue
            if len(row) != len(names):
                raise DatasetError(
                    f"{path}, line {rows.line_num}: {len(row)} values, expected {len(names)}"
                )
            for i in choice.features:
                number = _number(row[i])
                if math.isnan(number):
                    raise _no_number(f"{path}, line {rows.line_num}", names[i], row[i])
                x.append(number)
            if choice.target is not None:
                label = row[choice.target].strip()
                if label.lower() in _MISSING:
                    raise DatasetError(
                        f"{path}, line {rows.line_num}: {names[choice.target]!r}, the column to "
                        "predict, is missing: fill it in, or leave out the line"
                    )
                y.append(label)
    numbers = np.frombuffer(x, np.float64).reshape(-1, len(choice.features))
    return _table(path, names, choice, numbers, np.asarray(y, dtype=object))


def _numbered(n_columns: int) -> list[str]:
    """Return the names of columns that have none: 1, 2, and so on."""
    return [str(number + 1) for number in range(n_columns)]


def _number(text: str) -> float:
    """Return a finite number, NaN for any other text."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _no_number(where: str, name: str, value: Any) -> DatasetError:
    """Return the error of a feature that is no number."""
    text = str(value).strip()
    if value is None or text.lower() in _MISSING:
        return DatasetError(
            f"{where}: {name!r} is missing: fill it in, or leave out the row or the column"
        )
    return DatasetError(
        f"{where}: {name!r} is {text[:40]!r}, expected a number: encode text as numbers, or leave "
        "out the column; --target names the column to predict"
    )


def _table(
    path: Path, names: list[str], choice: _Choice, x: NDArray[Any], y: NDArray[Any]
) -> Table:
    """Check the numbers, and return the table."""
    if not len(x):
        raise DatasetError(f"{path} has no rows: expected a sample in each")
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0].tolist()
        name = names[choice.features[column]]
        raise _no_number(f"{path}, row {row + 1}", name, x[row, column])
    kept = tuple(names[i] for i in choice.features)
    if choice.target is None:
        return Table(kept, x, None, "")
    return Table(kept, x, y, names[choice.target])


def _read_parquet(path: Path, target: str | None, features: Sequence[str] | None) -> Table:
    columns = _parquet_columns(path)
    names = list(columns)
    if not names:
        raise DatasetError(f"{path} has no columns: expected features and a column to predict")
    choice = _choose(path, names, target, features)
    used = [columns[names[i]] for i in choice.features]
    for i, column in zip(choice.features, used, strict=True):
        if column.dtype.kind not in "biuf":
            value = next((value for value in column.tolist() if value is not None), None)
            raise _no_number(str(path), names[i], value)
    x = np.stack([column.astype(np.float64) for column in used], axis=1)
    y = np.empty(0) if choice.target is None else columns[names[choice.target]]
    for row, value in enumerate(y.tolist(), 1):
        if value is None or value != value:
            raise DatasetError(
                f"{path}, row {row}: {names[choice.target or 0]!r}, the column to predict, is "
                "missing: fill it in, or leave out the row"
            )
    return _table(path, names, choice, x, y)


def _parquet_columns(path: Path) -> dict[str, NDArray[Any]]:
    """Read the columns of a Parquet file by the first library that is installed."""
    with suppress(ImportError):
        table = importlib.import_module("pyarrow.parquet").read_table(path)
        return {n: table[n].to_numpy(zero_copy_only=False) for n in table.column_names}
    with suppress(ImportError):
        return read_polars(path)
    with suppress(ImportError):
        frame = importlib.import_module("pandas").read_parquet(path)
        return {str(name): frame[name].to_numpy() for name in frame.columns}
    raise ImportError(
        f"{path} needs pyarrow, polars or pandas with an engine, and none is installed: type "
        f"{pip_command('pyarrow')}, or save the table as .csv"
    )


def _read_npz(path: Path, target: str | None, features: Sequence[str] | None) -> Table:
    packed = path.stat().st_size
    with zipfile.ZipFile(path) as members:
        size = sum(member.file_size for member in members.infolist())
        if size > max(_MIN_LIMIT, _MAX_RATIO * packed):
            raise DatasetError(f"{path} of {packed:,} bytes unpacks to {size:,}, which is no data")
    with np.load(path, allow_pickle=False) as arrays:
        name = next((n for n in _ARRAYS if n in arrays), None)
        labels = [target] if target is not None else [*_TARGETS, "labels", "Y"]
        label = next((n for n in labels if n in arrays and features is None), None)
        if name is None or (label is None and target is not None):
            raise DatasetError(
                f"{path} has the arrays {', '.join(arrays)}; expected X of numbers, and y, or the "
                "name of another one as --target"
            )
        x, y = arrays[name], None if label is None else arrays[label]
    if x.ndim < 2 or x.dtype.kind not in "biuf":
        raise DatasetError(
            f"{path}: {name} is {x.dtype} of shape {x.shape}, expected numbers, a sample in each "
            "row"
        )
    x = x.reshape(len(x), -1)
    x = x if x.dtype in (np.uint8, np.float32) else x.astype(np.float64)
    if y is not None and (y.shape != (len(x),) or y.dtype.kind not in "biufU"):
        raise DatasetError(
            f"{path}: {label} is {y.dtype} of shape {y.shape}, expected a label for each of the "
            f"{len(x)} rows of {name}"
        )
    if y is not None and y.dtype.kind == "f" and not np.all(np.isfinite(y)):
        row = int(np.argmax(~np.isfinite(y))) + 1
        raise DatasetError(f"{path}, row {row}: {label}, the array to predict, is {y[row - 1]}")
    if features is not None and x.shape[1] != len(features):
        raise DatasetError(
            f"{path}: {name} has {x.shape[1]} columns, and the network was trained with "
            f"{len(features)}"
        )
    names = [*_numbered(x.shape[1]), label or ""]
    choice = _Choice([*range(x.shape[1])], None if y is None else x.shape[1])
    return _table(path, names, choice, x, np.empty(0) if y is None else y)


_READERS = {".csv": _read_csv, ".npz": _read_npz, ".parquet": _read_parquet}
TABLES = tuple(_READERS)
