"""The user's own tables: CSV, NPZ and Parquet files with one sample per row."""

import csv
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.storage.files import open_file
from mlp_xp.datasets._dataset import Column, DatasetError
from mlp_xp.datasets._own_data.columns import check_columns, first_value
from mlp_xp.datasets._own_data.parquet import read_parquet
from mlp_xp.datasets._own_data.values import (
    MISSING,
    NAMES,
    NUMBERS,
    WORDS,
    Values,
    is_no_date,
    is_no_number,
    parse,
)

_TARGETS = ("target", "label", "class", "y")  # The default names of the column to predict.
_ARRAYS = ("X", "x", "data", "features", "images")
_BYTES = {np.dtype(bool), np.dtype(np.uint8)}
_DELIMITERS = ";\t,|"  # In order of preference, because numbers and names may have commas.
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
# A file may unpack to `_MAX_RATIO` times its size, or to `_MIN_LIMIT` bytes if that is more.
_MAX_RATIO, _MIN_LIMIT = 64, 32 << 20
_BYTES_A_LABEL = 8
_MAY_NAME = {"", *NAMES}  # Texts that name a column in the first line, e.g. Na for sodium.
_MIN_PIXELS = 64  # The minimum number of pixels of an image, e.g. 8 x 8.


class Table(NamedTuple):
    """The content of a file: the names and values of the features, and the target.

    ``x`` contains numbers, with NaN for missing values, or objects if the file has text or dates,
    with None for missing values. ``n_left_out`` is the number of rows without a target; ``notes``
    tell the user about the target.
    """

    names: tuple[str, ...]
    x: NDArray[Any]
    y: NDArray[Any] | None
    target: str
    n_left_out: int = 0
    notes: tuple[str, ...] = ()


def read_table(
    path: Path,
    target: str | None = None,
    *,
    drop: Sequence[str] = (),
    columns: Sequence[Column] | None = None,
    has_target: bool = True,
) -> Table:
    """Read a table from a CSV (with or without a header), NPZ or Parquet file.

    By default, the target is the column named target, label, class or y, otherwise the last column,
    and all other columns are features. ``columns`` are the columns that a model was trained on. The
    target is read only if ``has_target`` is true.
    """
    try:
        open_file(path).close()
        wanted = _Wanted(target, tuple(drop), columns, has_target)
        return _READERS[path.suffix.lower()](path, wanted)
    except (DatasetError, ImportError):
        raise
    except MemoryError as error:
        raise DatasetError(f"{path} does not fit into memory: split the file") from error
    except Exception as error:  # Malicious bytes can raise any error.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        cure = f"check that it exists and is a {path.suffix} file"
        if isinstance(error, UnicodeDecodeError):
            cure = "save it as UTF-8"
        raise DatasetError(
            f"{path} cannot be read ({reason or type(error).__name__}): {cure}"
        ) from error


def holds_images(path: Path) -> bool:
    """Whether an NPZ file contains images: more than two axes, or rows of at least 64 bytes."""
    # Ignore errors here, since `read_table` reports them.
    with suppress(Exception), zipfile.ZipFile(path) as members:
        name = next(name for name in _ARRAYS if f"{name}.npy" in members.namelist())
        with members.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = f"read_array_header_{version[0]}_{version[1]}"
            shape, _, dtype = getattr(np.lib.format, read)(file)
        return len(shape) > 2 or (dtype == np.uint8 and shape[1] >= _MIN_PIXELS)
    return False


class _Wanted(NamedTuple):
    """The columns to read; see `read_table`."""

    target: str | None
    drop: tuple[str, ...]
    columns: Sequence[Column] | None
    has_target: bool

    def expected(self, n_columns: int) -> list[Column | None]:
        """Return the model's column at each position, or None at each position without a model."""
        return [None] * n_columns if self.columns is None else [*self.columns]


class _Choice(NamedTuple):
    """The positions of the features, and of the target if there is one."""

    features: list[int]
    target: int | None


def _choose(path: Path, names: list[str], wanted: _Wanted) -> _Choice:
    """Return the positions of the features and the target, after checking the names."""
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        raise DatasetError(
            f"{path} has {names.count(repeated[0])} columns named {repeated[0]!r}: rename all but "
            "one, or begin the file with a line of names"
        )
    from mlp_xp._utils.names import error_end  # Imported here, since difflib is slow to import.

    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    if unknown := [name for name in wanted.drop if name not in names]:
        end = error_end(unknown[0], names)
        raise DatasetError(f"{path} has no column {unknown[0]!r} to drop{end} It has {shown}")
    target = wanted.target
    if wanted.has_target:
        if target is None:
            kept = [name for name in names if name not in ("", *wanted.drop)] or names
            target = next((name for name in kept if name.lower() in _TARGETS), kept[-1])
        elif target not in names:
            end = error_end(target, names)
            raise DatasetError(f"{path} has no column {target!r} to predict{end} It has {shown}")
        if target in wanted.drop:
            raise DatasetError(f"{target!r} is the column to predict: leave it out of --drop")
    if wanted.columns is None:
        features = [name for name in names if name not in (target, "", *wanted.drop)]
    else:
        features = [column.name for column in wanted.columns]
    where = {name: position for position, name in enumerate(names)}
    if absent := [name for name in features if name not in where]:
        raise DatasetError(
            f"{path} has no column {', '.join(map(repr, absent))}, which the network was trained "
            f"with; it has {shown}"
        )
    if not features:
        raise DatasetError(f"{path} has only the column {target!r}: add at least one feature")
    position = where[str(target)] if wanted.has_target else None
    return _Choice([where[name] for name in features], position)


def _read_csv(path: Path, wanted: _Wanted) -> Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        first_line = file.readline(1 << 20)
        file.seek(0)
        unquoted = re.sub('"[^"]*"', "", first_line)
        delimiter = max(_DELIMITERS, key=unquoted.count) if {*unquoted} & {*_DELIMITERS} else ","
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        first = next(rows, [])
        if not first:
            raise DatasetError(f"{path} is empty: write a line of names, then a line per sample")
        texts = [n for n in first if isinstance(parse(n), str) or n.strip().lower() in _MAY_NAME]
        signs = ("target", "label", "class", str(wanted.target).lower())
        expected = {column.name for column in wanted.columns or ()}
        stripped = [name.strip() for name in first]
        is_known = bool(expected - {*_numbered(len(first))}) and expected <= {*stripped}
        has_names = len(texts) == len(first) or any(t.strip().lower() in signs for t in texts)
        has_names |= is_known  # Names may be numbers, e.g. years.
        names = stripped if has_names else _numbered(len(first))
        n_named = max((i + 1 for i, name in enumerate(names) if name), default=0)
        choice = _choose(path, names, wanted)
        known = wanted.expected(len(choice.features))
        columns = [(i, Values(column)) for i, column in zip(choice.features, known, strict=True)]
        if choice.target is not None:
            _check_varies(path, rows if has_names else chain([first], rows), names, choice.target)
            file.seek(0)
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            first = next(rows)
        y = []
        for row in rows if has_names else chain([first], rows):
            if not row:
                continue
            # A line may end with extra delimiters.
            if len(row) < n_named or any(row[len(names) :]):
                raise DatasetError(
                    f"{path}, line {rows.line_num} must have {len(names)} values, got {len(row)}"
                )
            for i, values in columns:
                values.add(row[i])
            if choice.target is not None:
                y.append(row[choice.target].strip())
    found = [values.array() for _, values in columns]
    labels, notes = _labels(y)
    return _table(path, names, choice, wanted, found, labels)._replace(notes=notes)


def _check_varies(path: Path, rows: Iterable[list[str]], names: list[str], target: int) -> None:
    """Raise DatasetError if the target is the same in all rows, before features are parsed."""
    values = (row[target].strip() for row in rows if len(row) > target)
    known = (value for value in values if value.lower() not in MISSING - NAMES)
    first = next(known, None)
    if first is not None and all(value == first for value in known):
        raise DatasetError(
            f"{path}: {names[target]!r} is {first[:40]} in every row: nothing to predict"
        )


def _labels(y: list[str]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the targets (None if missing) and notes; a class may be named NA or None."""
    texts = {text.lower() for text in {*y}} - MISSING
    holes = MISSING - NAMES if any(isinstance(parse(text), str) for text in texts) else MISSING
    counts = Counter(text for text in y if text.lower() in MISSING - holes)
    notes = tuple(
        f"{text!r} is a class ({count:,} rows): if it means a missing value, leave it empty"
        for text, count in counts.items()
    )
    return np.asarray([None if t.lower() in holes else t for t in y], dtype=object), notes


def _numbered(n_columns: int) -> list[str]:
    """Return the names 1, 2, ... for columns without names."""
    return [str(number + 1) for number in range(n_columns)]


def _table(
    path: Path,
    names: list[str],
    choice: _Choice,
    wanted: _Wanted,
    columns: list[NDArray[Any]] | NDArray[Any],
    y: NDArray[Any],
) -> Table:
    """Check the columns, and return the table without rows that lack a target."""
    kept = tuple(names[i] for i in choice.features)
    x: NDArray[Any]
    if isinstance(columns, np.ndarray):
        x = columns
    else:
        kinds = {column.dtype for column in columns}
        dtype = object if np.dtype(object) in kinds else np.uint8 if kinds <= _BYTES else np.float64
        x = np.empty((len(columns[0]), len(columns)), dtype)
        for i, values in enumerate(columns):
            x[:, i] = values.astype(np.float64) if values.dtype == bool else values
    is_known = np.asarray(y == y, dtype=bool)  # NaN is not equal to itself.
    if y.dtype == object:
        is_known &= np.asarray([value is not None for value in y], dtype=bool)
    if choice.target is not None and not np.all(is_known):
        x, y = x[is_known], y[is_known]
    if not len(x):
        raise DatasetError(f"{path} has no rows: add one per sample, with its target")
    for i, column in enumerate(wanted.columns or ()):
        if column.kind != "text" and isinstance(first_value(x[:, i]), str):
            is_wrong = is_no_date if column.kind == "date" else is_no_number
            texts = [text for text in x[:, i] if text and is_wrong(text)]
            text = next((text for text in texts if text.lower() not in WORDS), texts[0])
            what = "dates" if column.kind == "date" else "numbers"
            raise DatasetError(
                f"{path}: {column.name!r} has {text[:40]!r}, but the network was trained with "
                f"{what}: correct it, or leave it empty"
            )
    check_columns(path, kept, x)
    if choice.target is None:
        return Table(kept, x, None, "")
    return Table(kept, x, y, names[choice.target], len(is_known) - len(x))


def _read_parquet(path: Path, wanted: _Wanted) -> Table:
    if wanted.columns is None or (wanted.has_target and wanted.target is None):
        columns = read_parquet(path, wanted.drop)
    else:  # Read only the columns that the model needs, since a file may have others of any kind.
        used = [column.name for column in wanted.columns]
        used += [str(wanted.target)] * wanted.has_target
        columns = read_parquet(path, used, are_dropped=False)
    # Unless it is named, the index that pandas appends is left out, as in CSV files.
    named = {*wanted.drop, wanted.target, *(column.name for column in wanted.columns or ())}
    for name in columns.keys() - named:
        if _PANDAS_INDEX.fullmatch(name):
            del columns[name]
    names = list(columns)
    if not names:
        raise DatasetError(f"{path} has no columns: add features and a column to predict")
    choice = _choose(path, names, wanted)
    known = wanted.expected(len(choice.features))
    found = []
    for i, column in zip(choice.features, known, strict=True):
        values = columns[names[i]]
        kind = "flag" if column is None else column.kind
        if kind in NUMBERS and values.dtype.kind in ("biuf" if kind == "flag" else "iuf"):
            found.append(values)
            continue
        texts = Values(column)
        for value in values.tolist():
            texts.add("" if value is None else str(value))
        found.append(texts.array())
    y = np.empty(0) if choice.target is None else columns[names[choice.target]]
    return _table(path, names, choice, wanted, found, y)


def _read_npz(path: Path, wanted: _Wanted) -> Table:
    target = wanted.target
    packed = path.stat().st_size

    def check(size: int) -> None:
        if size > max(_MIN_LIMIT, _MAX_RATIO * packed):
            raise DatasetError(
                f"{path} has {packed:,} bytes but unpacks to {size:,}, which is implausible: if it "
                "is correct, save it with np.savez, which does not compress"
            )

    with zipfile.ZipFile(path) as members:
        check(sum(member.file_size for member in members.infolist()))
    with np.load(path, allow_pickle=False) as arrays:
        name = next((n for n in _ARRAYS if n in arrays), None)
        labels = [target] if target is not None else [*_TARGETS, "labels", "Y"]
        label = next((n for n in labels if n in arrays and wanted.has_target), None)
        if name is None or (label is None and target is not None):
            raise DatasetError(
                f"{path} has the arrays {', '.join(arrays)}, but needs X (numbers) and y: add "
                "them, or set --target to the name of another array"
            )
        y = None if label is None else arrays[label]
        if y is not None and y.ndim == 1 < len(y) and np.all(y == y[0]):
            raise DatasetError(f"{path}: {label} is {y[0]} in every row: nothing to predict")
        x = arrays[name]
    if x.ndim < 2 or x.dtype.kind not in "biuf":
        raise DatasetError(
            f"{path}: {name} must contain numbers, with one sample per row, got {x.dtype} of shape "
            f"{x.shape}"
        )
    x = x.reshape(len(x), -1)
    x = x.view(np.uint8) if x.dtype == bool else x
    dtype = x.dtype if x.dtype in (np.uint8, np.float32) else np.dtype(np.float64)
    check(x.size * dtype.itemsize + (0 if y is None else len(y) * _BYTES_A_LABEL))
    x = x.astype(dtype, copy=False)
    if y is not None and (y.shape != (len(x),) or y.dtype.kind not in "biufU"):
        raise DatasetError(
            f"{path}: {label} must contain a label for each of the {len(x)} rows of {name}, got "
            f"{y.dtype} of shape {y.shape}"
        )
    names = _numbered(x.shape[1])
    choice = _choose(path, names, wanted._replace(target=None, has_target=False))
    x = x if len(choice.features) == len(names) else x[:, choice.features]
    choice = choice._replace(target=None if y is None else len(names))
    return _table(path, [*names, label or ""], choice, wanted, x, np.empty(0) if y is None else y)


_READERS = {".csv": _read_csv, ".npz": _read_npz, ".parquet": _read_parquet}
TABLES = tuple(_READERS)
