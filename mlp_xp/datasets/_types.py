"""What every loader returns, and the one error that they raise about data."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


class DatasetError(ValueError):
    """A data set is missing, damaged or not what it should be; the message names file and cure."""


class Dataset(NamedTuple):
    """A labelled set of images, split for training and testing.

    Attributes
    ----------
    x_train, x_test : (n_images, channels * height * width) uint8
        Pixels, one image a row, channel planes one after the other. May be a read-only memory map.
    y_train, y_test : (n_images,) int64
        Class numbers, from 0 to ``len(class_names) - 1``.
    class_names : tuple of str
        The name of each class number.
    image_shape : (channels, height, width)
        What a row is reshaped to for drawing.
    max_value : int
        The largest pixel value: 255, or 16 for scikit-learn's digits.
    """

    x_train: Pixels
    y_train: Labels
    x_test: Pixels
    y_test: Labels
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    max_value: int = 255


class Content(NamedTuple):
    """What a reader found.

    Attributes
    ----------
    arrays : mapping of str to array
        ``x_train``, ``y_train``, ``x_test``, ``y_test``, and other labels where there are some.
    fingerprint : tuple of str
        SHA-256 digests that identify the content.
    """

    arrays: Mapping[str, NDArray[Any]]
    fingerprint: tuple[str, ...]
