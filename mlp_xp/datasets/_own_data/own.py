"""The user's own data as a `Dataset`: a folder of images, or a table."""

from collections.abc import Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.columns.categories import is_finite
from mlp_xp._utils.columns.table import as_matrix, select_columns
from mlp_xp._utils.names import list_names
from mlp_xp.datasets._dataset import Column, Columns, Dataset, DatasetError, split_dataset
from mlp_xp.datasets._own_data.columns import choose_columns
from mlp_xp.datasets._own_data.csv_format import CsvFormat, number_with_comma
from mlp_xp.datasets._own_data.images import read_images
from mlp_xp.datasets._own_data.selection import Table
from mlp_xp.datasets._own_data.tables import TABLES, read_table

_RECOGNIZED = CsvFormat()
_TEST_FRACTION = 0.2
TASKS = ("classification", "regression")
# Integers are classes if they have at most 20 distinct values, or one distinct value per 10 rows.
_MOST_CLASSES, _ROWS_A_CLASS = 20, 10
_EXACT = 2**53  # Integers below this number are exact in float64.


def load_files(
    path: str | PathLike[str],
    *,
    target: str | None = None,
    image_size: tuple[int, int] | None = None,
    task: str | None = None,
    drop: Sequence[str] = (),
    columns: Sequence[Column] | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
) -> Dataset:
    r"""Load your own data: a folder of images, or a table.

    Parameters
    ----------
    path : str or path-like
        A folder that contains one folder of PNG or JPEG files per class, or two such folders named
        ``train`` and ``test``; or a ``.csv``, ``.npz`` or ``.parquet`` file.
    target : str, optional
        The column of a table to predict. Default: the column named target, label, class or y,
        otherwise the last one. A column without a name is left out, because it is usually the index
        that pandas writes.
    image_size : (width, height), optional
        Resize all images. Default: they must all have the same size.
    task : {"classification", "regression"}, optional
        Whether to predict the target column as classes or as numbers. Default: as numbers if any
        has a fraction, or if there are more than 20 distinct values and more than one per ten rows.
    drop : sequence of str, optional
        Columns of a table to leave out.
    columns : sequence of Column, optional
        ``data.columns.used`` of the data that a network was trained on. Default: all columns that
        can be inputs.
    separator : str, optional
        The character between the columns of a CSV file. Default: the most frequent of semicolon,
        tab, comma and vertical bar in the first line.
    decimal : {".", ","}, optional
        The decimal point of the numbers in a CSV file. Default: ".".
    encoding : str, optional
        The encoding of a CSV file, such as "cp1252" or "utf-16". Default: UTF-8, UTF-16 or UTF-32,
        or cp1252 (Western European) if the file has other bytes, with a note in ``columns``.

    Returns
    -------
    Dataset
        A fifth of each class, or of the rows, is the test set, drawn at random with a fixed seed.
        For a table, ``image_shape`` is None, and an estimator with
        ``categorical_features="from_dtype"`` and ``missing_values="impute"`` accepts its columns:
        numbers, with NaN for missing values; true, false, yes and no as 1 and 0; and dates and
        text, with None for missing values. Rows without a target, and text columns in which nearly
        all values differ, are left out, with a note in ``columns``. For numeric targets,
        ``class_names`` is empty.

    Raises
    ------
    DatasetError
        If the data are invalid (the message names the file and the line or column), if an option
        for tables is given for a folder, `image_size` for a table, or an option for CSV files for
        another file.
    ImportError
        If a library that reads the files is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from mlp_xp.datasets import load_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "animals.csv")
    ...     _ = file.write_text("legs,weight,kind\n" + "4,5,cat\n4,30,dog\n" * 5)
    ...     data = load_files(file)
    >>> data.x_train.shape, data.feature_names, data.class_names
    ((8, 2), ('legs', 'weight'), ('cat', 'dog'))
    """
    options: Any = {"target": target, "image_size": image_size, "task": task}
    options |= {"separator": separator, "decimal": decimal, "encoding": encoding}
    data = read_files(path, drop=drop, columns=columns, **options)
    return data._replace(x_train=as_matrix(data.x_train), x_test=as_matrix(data.x_test))


def read_files(
    path: str | PathLike[str],
    *,
    target: str | None = None,
    image_size: tuple[int, int] | None = None,
    task: str | None = None,
    drop: Sequence[str] = (),
    columns: Sequence[Column] | None = None,
    **form_options: str | None,
) -> Dataset:
    """Load data like `load_files`, but CSV and Parquet files as a `ColumnTable`."""
    path, form = Path(path), CsvFormat(**form_options)
    if task not in (None, *TASKS):
        raise DatasetError(f"`task` must be {' or '.join(map(repr, TASKS))}, got {task!r}")
    if path.suffix.lower() != ".csv" or path.is_dir():
        form.refuse(path)
    if path.is_dir():
        if task == "regression":
            raise DatasetError(
                f"{path} is a folder of images, whose subfolders are classes: leave out --task "
                "regression, which is for tables"
            )
        for option, value in ("--target", target), ("--drop", ",".join(drop)):
            if value:
                raise DatasetError(
                    f"{path} is a folder of images: leave out {option} {value}, which is for tables"
                )
        parts = [path / "train", path / "test"]
        if all(part.is_dir() for part in parts):
            (x, y, shape), (x_test, y_test, other) = (read_images(p, image_size) for p in parts)
            if shape != other:
                raise DatasetError(
                    f"the images in {parts[0]} have shape {shape} (channels, height, width), but "
                    f"those in {parts[1]} have {other}: pass --image-size to resize them all"
                )
            names, labels = np.unique(y, return_inverse=True)
            if unknown := sorted({*y_test.tolist()} - {*names.tolist()}):
                raise DatasetError(f"the class {parts[1] / unknown[0]} is missing in {parts[0]}")
            y_test = np.searchsorted(names, y_test)
            return Dataset(x, labels, x_test, y_test, tuple(names.tolist()), shape)
        x, y, shape = read_images(path, image_size)
        return _split(path, x, y, shape)
    if path.suffix.lower() not in TABLES:
        raise DatasetError(
            f"{path} must be a folder with one subfolder of images per class, "
            f"or an existing file that ends in {', '.join(TABLES)}"
        )
    if image_size is not None:
        raise DatasetError(
            f"{path} is a table: leave out --image-size, which is for folders of images"
        )
    table = read_table(path, target, drop=drop, columns=columns, form=form)
    return split_table(path, table, task, columns, has_all=not drop, form=form)


def split_table(
    path: Path,
    table: Table,
    task: str | None,
    columns: Sequence[Column] | None,
    *,
    has_all: bool = True,
    form: CsvFormat = _RECOGNIZED,
) -> Dataset:
    """Return a table as a data set, with a fifth of the rows held out; see `load_files`."""
    if table.y is None:
        raise DatasetError(f"{path} has no array y to predict: add y, or set --target to an array")
    values = None if task == "classification" else _numbers(path, table, is_sure=task is not None)
    if values is not None:
        data = _split_numbers(path, table, values)
    else:
        where = f"{path}, column {table.target!r}"
        data = _split(where, table.rows, _labels(table.y), None, table.names)
    return _with_inputs(path, data, table, columns, has_all=has_all, form=form)


def targets_of(path: Path, table: Table, class_names: Sequence[str]) -> NDArray[Any]:
    """Return the targets of new rows: the indices of classes, or numbers if there are no classes.

    Raise DatasetError for targets that the network cannot predict.
    """
    if table.y is None:
        raise DatasetError(f"{path} has no array y to test on: add y")
    if not class_names:
        numbers = _numbers(path, table, is_sure=True)
        assert numbers is not None
        return numbers
    codes = {name: code for code, name in enumerate(class_names)}
    labels = [*map(str, _labels(table.y).tolist())]
    if unknown := sorted({*labels} - codes.keys()):
        known = list_names(class_names, str)
        raise DatasetError(
            f"{path}: {table.target!r} has {unknown[0][:40]!r}, but the network was trained with "
            f"the classes {known}: correct it, or leave it empty to skip the row"
        )
    return np.asarray([codes[label] for label in labels])


def _with_inputs(
    path: Path,
    data: Dataset,
    table: Table,
    used: Sequence[Column] | None,
    *,
    has_all: bool,
    form: CsvFormat,
) -> Dataset:
    """Return the data with only the columns that can be inputs."""
    notes = []
    if table.n_left_out:
        notes.append(f"left out: {table.n_left_out:,} rows without {table.target}")
    notes += table.notes
    x = table.rows
    is_plain = isinstance(x, np.ndarray) and not (x.dtype.kind == "f" and np.any(np.isnan(x)))
    # NPZ arrays of plain numbers keep their dtype.
    if is_plain and has_all and path.suffix.lower() == ".npz" and used is None:
        return data._replace(columns=Columns(table.target, (), tuple(notes)))
    if used is None:
        used, more = choose_columns(path, table.columns, x, data.x_train, form)
        notes = [*more, *notes]
        if len(used) < len(table.names):
            places = {name: place for place, name in enumerate(table.names)}
            kept = [places[column.name] for column in used]
            parts = (select_columns(part, kept) for part in (data.x_train, data.x_test))
            data = data._replace(**dict(zip(("x_train", "x_test"), parts, strict=True)))
    return data._replace(
        feature_names=tuple(column.name for column in used),
        columns=Columns(table.target, tuple(used), tuple(notes)),
    )


def _numbers(path: Path, table: Table, *, is_sure: bool) -> NDArray[np.float64] | None:
    """Return the numbers to predict, or None for classes; raise if the target must be numeric."""
    assert table.y is not None
    try:
        numbers = table.y.astype(np.float64)
        are_finite = np.isfinite(numbers)
    except ValueError:
        are_finite = np.asarray(False)
    if not np.all(are_finite) and (text := _decimal_comma(table.y)):
        classes = "" if is_sure else "; to predict classes, type --task classification"
        raise DatasetError(
            f"{path}: {table.target!r}, the column to predict, has {text!r}: if commas are decimal "
            f"points, type --decimal ,; if they separate thousands, remove them{classes}"
        )
    if is_sure and not np.all(are_finite):
        bad = next(value for value in table.y if not is_finite(value))
        raise DatasetError(
            f"{path}: {table.target!r}, the column to predict, has {bad!r}, which is not a number: "
            "correct it (numbers are plain, such as 1234.5), leave out --task regression, or set "
            "--target to a numeric column"
        )
    if is_sure:
        return numbers
    if table.y.dtype.kind == "b" or not np.all(are_finite):
        return None
    n_different = len(np.unique(numbers))
    is_whole = np.all(numbers == np.round(numbers))
    are_few = n_different <= max(_MOST_CLASSES, len(numbers) // _ROWS_A_CLASS)
    return None if is_whole and are_few else numbers


def _decimal_comma(y: NDArray[Any]) -> str | None:
    """Return the first text with a comma if all texts are numbers with commas, otherwise None."""
    texts = dict.fromkeys(y.tolist())
    with suppress(AttributeError, TypeError, ValueError):  # A value is no text, or no number.
        for text in texts:
            number_with_comma(text)
        return next((text for text in texts if "," in text), None)
    return None


def _labels(y: NDArray[Any]) -> NDArray[Any]:
    """Return the labels as integers if all are whole numbers, otherwise as text."""
    if y.dtype.kind == "b":
        return np.where(y, "True", "False")
    with suppress(ValueError):
        numbers = y.astype(np.float64)
        if np.all((numbers == np.round(numbers)) & (np.abs(numbers) < _EXACT)):
            return numbers.astype(np.int64)
    # Use objects, since one long value would widen all entries of a string array.
    return np.asarray([str(value) for value in y.tolist()], dtype=object)


def _split_numbers(path: Path, table: Table, y: NDArray[np.float64]) -> Dataset:
    """Return the samples, with a fifth of them held out for testing."""
    if len(np.unique(y)) < 2:
        raise DatasetError(f"{path}: {table.target!r} is {y[0]:g} in every row: nothing to predict")
    if len(y) < 4:
        raise DatasetError(f"{path} must have at least 4 rows, got {len(y)}")
    fraction = min(1 - _TEST_FRACTION, (len(y) - 2) / len(y))  # The R2 score needs 2 samples.
    train, y_train, test, y_test = split_dataset(np.arange(len(y)), y, fraction)
    x: Any = table.rows
    return Dataset(x[train], y_train, x[test], y_test, (), None, 1, table.names)


def _split(
    path: Path | str,
    x: Any,
    y: NDArray[Any],
    image_shape: tuple[int, int, int] | None,
    feature_names: tuple[str, ...] = (),
) -> Dataset:
    """Return the samples, with a fifth of each class held out for testing."""
    values = y.tolist()  # np.unique would sort all values.
    names = sorted({*values})
    codes = {name: code for code, name in enumerate(names)}
    labels = np.asarray([codes[value] for value in values])
    counts = np.bincount(labels)
    if len(names) < 2:
        raise DatasetError(f"{path} must have at least 2 classes, got only {str(names[0])!r}")
    if counts.min() < 2:
        raise DatasetError(
            f"{path}: each class must have at least 2 samples, one to train and one to test, but "
            f"{str(names[counts.argmin()])!r} has one (the {len(y):,} samples have {len(names):,} "
            "classes; for a numeric target, type --task regression; for another column, use "
            "--target)"
        )
    order = np.random.Generator(np.random.Philox(0)).permutation(len(y))
    is_test = np.zeros(len(y), dtype=bool)
    by_class = order[np.argsort(labels[order], kind="stable")]
    for rows in np.split(by_class, np.cumsum(counts)[:-1]):
        is_test[rows[: max(1, round(_TEST_FRACTION * len(rows)))]] = True
    train, test = order[~is_test[order]], order[is_test[order]]
    parts = x[train], labels[train], x[test], labels[test]
    class_names, max_value = tuple(map(str, names)), 1 if image_shape is None else 255
    return Dataset(*parts, class_names, image_shape, max_value, feature_names)
