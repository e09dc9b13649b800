"""What a contender is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["MOMENTUM", "Contender", "Task"]

MOMENTUM = 0.9  # Nesterov's, of "sgd".


class Task(NamedTuple):
    """A network to train, and its data in memory."""

    widths: tuple[int, ...]
    activation: str  # "relu" or "logistic"
    solver: str  # "adam", "sgd" with Nesterov's momentum, or "descent" without any
    learning_rate: float
    batch_size: int  # as many as there are rows: the full batch, in the order it has
    x: np.ndarray  # (images, features), float32, or uint8 for those who scale by themselves
    y: np.ndarray  # (images,), int32
    threads: int


class Contender(NamedTuple):
    """What it can do, ready and waiting."""

    train: Callable[[int], float]  # so many epochs more; the loss in the last of them
    predict: Callable[[np.ndarray], object] | None = None  # the classes of rows like the task's
