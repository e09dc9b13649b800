"""The data set returned by every loader, its error, and a random split."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlp_xp._utils.dataclass import dataclass

Pixels = NDArray[np.uint8]
Labels = NDArray[Any]
Layout = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]  # Shapes and dtypes by name.

D = TypeVar("D", bound=np.generic)
L = TypeVar("L", bound=np.generic)


class DatasetError(ValueError):
    """Raised if a data set is missing or damaged; the message names the file and the fix."""


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, its kind, and whether values are missing.

    The kind is number, flag, date or text. A flag is 0 or 1, or written as true, false, yes or no.
    """

    name: str
    kind: str = "number"
    has_gaps: bool = False


class Columns(NamedTuple):
    """The columns of a table: the one to predict, the inputs, and notes for the user."""

    target: str
    used: tuple[Column, ...]
    notes: tuple[str, ...] = ()


class Dataset(NamedTuple):
    """A labeled data set, split into training and test samples.

    Attributes
    ----------
    x_train, x_test : (n_images, channels * height * width) uint8
        One image per row, one channel plane after the other. May be a read-only memory map. For a
        table: numbers, with NaN for missing values; or objects, with None for missing values, if
        the table contains text or dates.
    y_train, y_test : (n_images,) int64 or float64
        Class indices from 0 to ``len(class_names) - 1``, or, for a table, numbers to predict.
    class_names : tuple of str
        The name of each class; empty if numbers are predicted.
    image_shape : (channels, height, width) or None
        The shape of an image; None for a table.
    max_value : int
        The largest pixel value: 255, or 16 for scikit-learn's digits.
    feature_names : tuple of str
        The names of the columns of a table.
    columns : Columns or None
        The columns of a table: the target, the input columns, and notes for the user.
    """

    x_train: Pixels
    y_train: Labels
    x_test: Pixels
    y_test: Labels
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    max_value: int = 255
    feature_names: tuple[str, ...] = ()
    columns: Columns | None = None

    def __repr__(self) -> str:
        """Summarize the numbers of samples and classes on one line."""
        if self.image_shape is None:
            samples = f"samples of {self.x_train.shape[1]:,} features"
        else:
            samples = f"images of {' x '.join(map(str, self.image_shape))}"
        targets = f"{len(self.class_names)} classes" if self.class_names else "numbers to predict"
        counts = f"{len(self.x_train):,} training and {len(self.x_test):,} test"
        return f"Dataset({counts} {samples}, {targets})"


class Content(NamedTuple):
    """The arrays in a file or folder, by name, and the SHA-256 digests that identify them."""

    arrays: Mapping[str, NDArray[Any]]
    fingerprint: tuple[str, ...]


def split_dataset(
    data: NDArray[D], labels: NDArray[L], split: float, *, seed: int = 0
) -> tuple[NDArray[D], NDArray[L], NDArray[D], NDArray[L]]:
    """Shuffle a data set and split it into training and test samples.

    Parameters
    ----------
    data : (n, ...) array
        One sample per row.
    labels : (n, ...) array
        One label per sample.
    split : float
        The fraction of training samples, above 0 and below 1; their number is
        ``round(split * n)``.
    seed : int
        The random seed; equal seeds give equal splits.

    Returns
    -------
    data_train, labels_train, data_test, labels_test : array
        Copies, with the dtypes of `data` and `labels`.

    Raises
    ------
    ValueError
        `data` and `labels` differ in length, `split` is not between 0 and 1, or one part
        would be empty.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = np.arange(20).reshape(10, 2), np.arange(10)
    >>> x_train, y_train, x_test, y_test = split_dataset(x, y, 0.7)
    >>> x_train.shape, y_test.shape
    ((7, 2), (3,))
    >>> bool((x_train[:, 0] == 2 * y_train).all())
    True
    """
    data, labels = np.asarray(data), np.asarray(labels)
    if data.ndim == 0 or labels.ndim == 0 or len(data) != len(labels):
        raise ValueError(
            f"data and labels must have one label per sample, got shapes {data.shape} and "
            f"{labels.shape}: pass labels[:len(data)], or the matching data"
        )
    if not 0 < split < 1:
        raise ValueError(
            f"`split` must be the fraction of training samples, above 0 and below 1, got {split!r}"
            ": e.g. split=0.9 for 90 %"
        )
    n_train = round(split * len(data))
    if n_train in (0, len(data)):
        raise ValueError(
            f"both parts must have at least one sample, but split={split!r} uses {n_train} of "
            f"{len(data)} samples for training: pass more samples or another split"
        )
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(data))
    train, test = order[:n_train], order[n_train:]
    return data[train], labels[train], data[test], labels[test]
