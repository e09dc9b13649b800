"""The handwritten digits included with scikit-learn."""

import importlib.util
from pathlib import Path

import numpy as np

from mlp_xp.datasets._dataset import Dataset, split_dataset

_TRAINING_FRACTION = 0.8


def load_digits(*, seed: int = 0) -> Dataset:
    """Load scikit-learn's digits: 1,797 images of 8 by 8 gray pixels in 10 classes.

    The images are included with scikit-learn, so nothing is downloaded or cached. There is no
    official split: four fifths of the images, drawn at random, are for training.

    Parameters
    ----------
    seed : int
        The random seed; equal seeds give equal splits.

    Returns
    -------
    Dataset
        ``x_train`` (1438, 64) and ``x_test`` (359, 64) are uint8 from 0 to 16, pixels row by row;
        ``y_train`` and ``y_test`` are int64.

    Examples
    --------
    >>> digits = load_digits()
    >>> digits.x_train.shape, digits.x_test.shape, digits.max_value
    ((1438, 64), (359, 64), 16)
    """
    from sklearn import datasets  # Imported here, since it is slow to import.

    pixels, labels = datasets.load_digits(return_X_y=True)
    x_train, y_train, x_test, y_test = split_dataset(
        pixels.astype(np.uint8), labels.astype(np.int64), _TRAINING_FRACTION, seed=seed
    )
    names = tuple(str(digit) for digit in range(10))
    return Dataset(x_train, y_train, x_test, y_test, names, (1, 8, 8), max_value=16)


def digits_file() -> Path | None:
    """Return the path of scikit-learn's file that contains the digits."""
    found = importlib.util.find_spec("sklearn")
    if not (found and found.origin):
        return None
    return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
