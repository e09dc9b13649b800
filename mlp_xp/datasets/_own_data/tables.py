"""The user's own tables: CSV, NPZ and Parquet files with one sample per row."""

import re
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from mlp_xp._utils.columns.kinds import CodedColumn, RawColumn
from mlp_xp._utils.storage.files import open_file
from mlp_xp.datasets._dataset import Column, DatasetError
from mlp_xp.datasets._own_data.csv_files import read_csv
from mlp_xp.datasets._own_data.csv_format import CsvFormat
from mlp_xp.datasets._own_data.parquet import read_parquet
from mlp_xp.datasets._own_data.selection import (
    TARGETS,
    Table,
    Wanted,
    choose,
    make_table,
    numbered,
)
from mlp_xp.datasets._own_data.values import NUMBERS, Values

_ARRAYS = ("X", "x", "data", "features", "images")
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
# A file may unpack to `_MAX_RATIO` times its size, or to `_MIN_LIMIT` bytes if that is more.
_MAX_RATIO, _MIN_LIMIT = 64, 32 << 20
_BYTES_A_LABEL = 8
_RECOGNIZED = CsvFormat()
_MIN_PIXELS = 64  # The minimum number of pixels of an image, e.g. 8 x 8.


def read_table(
    path: Path,
    target: str | None = None,
    *,
    drop: Sequence[str] = (),
    columns: Sequence[Column] | None = None,
    has_target: bool = True,
    form: CsvFormat = _RECOGNIZED,
    kept: Sequence[str] = (),
) -> Table:
    """Read a table from a CSV (with or without a header), NPZ or Parquet file.

    By default, the target is the column named target, label, class or y, otherwise the last column,
    and all other columns are features. ``columns`` are the columns that a model was trained on. The
    target is read only if ``has_target`` is true. ``form`` is the format of a CSV file. Columns in
    ``kept`` are returned as they are in the file, which requires that ``has_target`` is false.
    """
    try:
        open_file(path).close()
        wanted = Wanted(target, tuple(drop), columns, has_target, form, tuple(kept))
        return _READERS[path.suffix.lower()](path, wanted)
    except (DatasetError, ImportError):
        raise
    except MemoryError as error:
        raise DatasetError(f"{path} does not fit into memory: split the file") from error
    except UnicodeError as error:
        given = f" as {form.encoding}" if form.encoding else ""
        raise DatasetError(
            f"{path} cannot be read{given} ({error}): set --encoding to the encoding of the file, "
            "e.g. utf-8, utf-16, cp1252 (Western European) or cp1250 (Central European)"
        ) from error
    except Exception as error:  # Malicious bytes can raise any error.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        cure = f"check that it exists and is a {path.suffix} file"
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


def _read_parquet(path: Path, wanted: Wanted) -> Table:
    if wanted.columns is None or (wanted.has_target and wanted.target is None):
        columns = read_parquet(path, wanted.drop)
    else:  # Read only the columns that the model needs, since a file may have others of any kind.
        used = [column.name for column in wanted.columns]
        used += [*wanted.kept, *[str(wanted.target)] * wanted.has_target]
        columns = read_parquet(path, used, are_dropped=False)
    # Unless it is named, the index that pandas appends is left out, as in CSV files.
    named = {
        *wanted.drop,
        *wanted.kept,
        wanted.target,
        *(column.name for column in wanted.columns or ()),
    }
    for name in columns.keys() - named:
        if _PANDAS_INDEX.fullmatch(name):
            del columns[name]
    names = list(columns)
    if not names:
        raise DatasetError(f"{path} has no columns: add features and a column to predict")
    choice = choose(path, names, wanted)
    known = wanted.expected(len(choice.features))
    pairs = zip(choice.features, known, strict=True)
    found = [_parse(columns[names[i]], column, wanted.form) for i, column in pairs]
    y = np.empty(0) if choice.target is None else columns[names[choice.target]].plain_values
    # NaN is missing, too, and is not valid in JSON.
    kept = {
        name: [v if v == v else None for v in columns[names[place]].plain_values.tolist()]
        for name, place in choice.kept.items()
    }
    return make_table(path, names, choice, wanted, found, y)._replace(kept=kept)


def _parse(raw: RawColumn, column: Column | None, form: CsvFormat) -> RawColumn:
    """Return a column of a Parquet file as the kind that the model expects, or its own kind."""
    values, texts = raw.values, Values(column, form)
    if isinstance(raw, CodedColumn):  # Parse each distinct text once; the last cell is missing.
        codes, cells = raw.factors
        texts.extend([*map(str, cells), ""])
        parsed = texts.column(raw.label)
        if parsed.kind != "text":
            return parsed.take(codes)
        places, categories = parsed.factors
        return CodedColumn(raw.label, "text", places[codes], categories=categories)
    kind = "flag" if column is None else column.kind
    if kind in NUMBERS and values.dtype.kind in ("biuf" if kind == "flag" else "iuf"):
        return RawColumn(raw.label, "flag" if values.dtype.kind == "b" else "number", values)
    texts.extend(["" if value is None else str(value) for value in values.tolist()])
    return texts.column(raw.label)


def _read_npz(path: Path, wanted: Wanted) -> Table:
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
        labels = [target] if target is not None else [*TARGETS, "labels", "Y"]
        label = next((n for n in labels if n in arrays and wanted.has_target), None)
        if name is None or (label is None and target is not None):
            raise DatasetError(
                f"{path} has the arrays {', '.join(arrays)}, but needs X (numbers) and y: add "
                "them, or set --target to the name of another array"
            )
        y = None if label is None else arrays[label]
        is_new = wanted.columns is not None
        if y is not None and not is_new and y.ndim == 1 < len(y) and np.all(y == y[0]):
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
    names = numbered(x.shape[1])
    choice = choose(path, names, wanted._replace(target=None, has_target=False))
    x = x if len(choice.features) == len(names) else x[:, choice.features]
    choice = choice._replace(target=None if y is None else len(names))
    return make_table(
        path, [*names, label or ""], choice, wanted, x, np.empty(0) if y is None else y
    )


_READERS = {".csv": read_csv, ".npz": _read_npz, ".parquet": _read_parquet}
TABLES = tuple(_READERS)
