"""Data of the user's own as a `Dataset`: a folder of pictures, or a table."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_xp.datasets._dataset import Dataset, DatasetError
from mlp_xp.datasets._pictures import read_pictures
from mlp_xp.datasets._tables import TABLES, read_table

_TEST_SHARE = 0.2
_EXACT = 2**53  # Whole numbers below it are exact as float64.


def load_files(
    path: str | PathLike[str],
    *,
    target: str | None = None,
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    r"""Load data of your own, to classify: a folder of pictures, or a table.

    Parameters
    ----------
    path : str or path-like
        A folder with a folder of PNG or JPEG files for each class, or with two such folders,
        ``train`` and ``test``; or a ``.csv``, ``.npz`` or ``.parquet`` file.
    target : str, optional
        The column of a table with the class. Default: the one called target, label, class or y,
        else the last. A column without a name is left out: it is the index that pandas writes.
    image_size : (width, height), optional
        Resize all pictures. Default: they must have one size.

    Returns
    -------
    Dataset
        A fifth of each class is for the test, drawn at random, the same each time. Of a table,
        ``image_shape`` is None and ``feature_names`` has the columns.

    Raises
    ------
    DatasetError
        With the file, and the line or column, of what is wrong; or `target` is given for a folder,
        or `image_size` for a table.
    ImportError
        A library that reads the files is not installed.

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
    path = Path(path)
    if path.is_dir():
        if target is not None:
            raise DatasetError(
                f"{path} is a folder, whose classes are its folders: leave out --target "
                f"{target}, which is for tables"
            )
        parts = [path / "train", path / "test"]
        if all(part.is_dir() for part in parts):
            (x, y, shape), (x_test, y_test, other) = (read_pictures(p, image_size) for p in parts)
            if shape != other:
                raise DatasetError(
                    f"the pictures of {parts[0]} are {shape} (channels, height, width), and those "
                    f"of {parts[1]} {other}: type --image-size to resize all of them"
                )
            names, labels = np.unique(y, return_inverse=True)
            if unknown := sorted({*y_test.tolist()} - {*names.tolist()}):
                raise DatasetError(f"{parts[1] / unknown[0]} is a class that {parts[0]} lacks")
            y_test = np.searchsorted(names, y_test)
            return Dataset(x, labels, x_test, y_test, tuple(names.tolist()), shape)
        x, y, shape = read_pictures(path, image_size)
        return _split(path, x, y, shape)
    if path.suffix.lower() not in TABLES:
        raise DatasetError(
            f"{path} is no data set: expected a folder with a folder of pictures for each class, "
            f"or a file that is there and ends in {', '.join(TABLES)}"
        )
    if image_size is not None:
        raise DatasetError(
            f"{path} is a table: leave out --image-size, which is for folders of pictures"
        )
    table = read_table(path, target)
    if table.y is None:
        raise DatasetError(f"{path} has no array y to predict: add it, or name one as --target")
    return _split(path, table.x, _labels(path, table.y, table.target), None, table.names)


def _labels(path: Path, y: NDArray[Any], name: str) -> NDArray[Any]:
    """Return labels: integers where all are whole numbers, else text; fractions are an error."""
    text = np.asarray([str(value) for value in y.tolist()])
    if y.dtype.kind == "b":
        return text
    try:
        numbers = y.astype(np.float64)
    except ValueError:
        return text
    fractions = numbers[numbers != np.round(numbers)]
    if len(fractions):
        raise DatasetError(
            f"{path}: {name!r}, the column to predict, has numbers such as {fractions[0]:g}, and "
            "only classes can be learned from files: use mlp_xp.MLPRegressor in Python to predict "
            "numbers, as in docs/datasets.md, or name a column of classes as --target"
        )
    return numbers.astype(np.int64) if np.all(np.abs(numbers) < _EXACT) else text


def _split(
    path: Path,
    x: NDArray[Any],
    y: NDArray[Any],
    image_shape: tuple[int, int, int] | None,
    feature_names: tuple[str, ...] = (),
) -> Dataset:
    """Return the samples with a fifth of each class held out for the test."""
    names, labels = np.unique(y, return_inverse=True)
    counts = np.bincount(labels)
    if len(names) < 2:
        raise DatasetError(f"{path} has the class {str(names[0])!r} alone, expected two or more")
    if counts.min() < 2:
        raise DatasetError(
            f"{path}: the class {str(names[counts.argmin()])!r} has one sample, expected one to "
            f"train on and one to test at least (there are {len(names):,} classes of {len(y):,} "
            "samples; if it is a number to predict, use mlp_xp.MLPRegressor in Python)"
        )
    order = np.random.Generator(np.random.Philox(0)).permutation(len(y))
    is_test = np.zeros(len(y), dtype=bool)
    by_class = order[np.argsort(labels[order], kind="stable")]
    for rows in np.split(by_class, np.cumsum(counts)[:-1]):
        is_test[rows[: max(1, round(_TEST_SHARE * len(rows)))]] = True
    train, test = order[~is_test[order]], order[is_test[order]]
    return Dataset(
        x[train],
        labels[train],
        x[test],
        labels[test],
        tuple(map(str, names.tolist())),
        image_shape,
        1 if image_shape is None else 255,
        feature_names,
    )
