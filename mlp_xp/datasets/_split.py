"""Split a data set at random."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

D = TypeVar("D", bound=np.generic)
L = TypeVar("L", bound=np.generic)


def split_dataset(
    data: NDArray[D], labels: NDArray[L], split: float, *, seed: int = 0
) -> tuple[NDArray[D], NDArray[L], NDArray[D], NDArray[L]]:
    """Shuffle a data set and split it into a part to train on and a part to test on.

    Parameters
    ----------
    data : (n, ...) array
        One sample a row.
    labels : (n, ...) array
        One label a sample.
    split : float
        The fraction that goes to training, between 0 and 1, both excluded. The number of
        training samples is ``round(split * n)``.
    seed : int
        The same seed gives the same split.

    Returns
    -------
    data_train, labels_train, data_test, labels_test : array
        Copies, with the dtypes of `data` and `labels`.

    Raises
    ------
    ValueError
        `data` and `labels` differ in length, `split` is not between 0 and 1, or leaves one part
        empty.

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
            f"data of shape {data.shape} and labels of shape {labels.shape}, expected one label a "
            "sample: pass labels[:len(data)], or the data that belong to them"
        )
    if not 0 < split < 1:
        raise ValueError(
            f"split={split!r}, expected the fraction for training, as in split=0.9 for nine tenths"
        )
    n_train = round(split * len(data))
    if n_train in (0, len(data)):
        raise ValueError(
            f"split={split!r} of {len(data)} samples puts {n_train} into training, expected at "
            "least one in each part: pass more samples or another split"
        )
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(data))
    train, test = order[:n_train], order[n_train:]
    return data[train], labels[train], data[test], labels[test]
