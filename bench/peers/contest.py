"""The interface of a contender: its task, and the functions it returns."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MOMENTUM = 0.9  # The Nesterov momentum of "sgd".


class Task(NamedTuple):
    """A network to train, and its data in memory."""

    widths: tuple[int, ...]
    activation: str  # "relu" or "logistic"
    solver: str  # "adam", "sgd" with Nesterov momentum, or "descent" without momentum
    learning_rate: float
    batch_size: int  # the number of rows for full-batch training without shuffling
    x: np.ndarray  # (images, features), float32, or uint8 for contenders that scale by themselves
    y: np.ndarray  # (images,), int32
    threads: int


class Contender(NamedTuple):
    """The functions of a prepared contender."""

    train: Callable[[int], float]  # trains for n more epochs and returns the last loss
    predict: Callable[[np.ndarray], object] | None = None  # returns the classes of rows
