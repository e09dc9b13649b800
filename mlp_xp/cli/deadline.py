"""A command that ends in time: what a training may take of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp.callbacks import Callback

__all__ = ["Deadline"]

# What is kept for the end beside a prediction and the pictures, which are measured: writing the
# model, and the end of the process, which lets go of its libraries.
_REST = 1.5
_SLICE = 2048


class Deadline(Callback):
    """Leaves a fit the time that the rest of the command will not need.

    Before the first step a prediction for some training images and a picture of it tell how long
    those of the test images will take, also where other programs are at work.

    Parameters
    ----------
    end : float
        When the command must end, of `time.perf_counter`. The fit must begin right now.
    x : (images, features) array
    n_test : int
    draw : callable
        ``draw(predicted)`` draws a picture.
    """

    def __init__(
        self, end: float, x: np.ndarray, n_test: int, draw: Callable[[np.ndarray], None]
    ) -> None:
        self._end = end
        self._x = x[:_SLICE]
        self._n_test = n_test
        self._draw = draw
        self._began = time.perf_counter()

    def on_fit_begin(self, model: Any) -> None:
        """Set the time of the fit."""
        model.predict(self._x)
        start = time.perf_counter()
        predicted = model.predict(self._x)
        middle = time.perf_counter()
        self._draw(predicted)
        now = time.perf_counter()
        del self._x, self._draw  # The data are to go as soon as they are not needed.
        # Of the two pictures at the end neither loads a library any more.
        rest = (
            _REST + 1.25 * (middle - start) * self._n_test / len(predicted) + 1.5 * (now - middle)
        )
        if self._end - rest <= now:
            passed = model.max_time - (self._end - now)
            raise ValueError(
                f"max_time is {model.max_time:g} s, and {passed:.1f} s have passed before the "
                f"first step and {rest:.1f} s are needed after the last: give more"
            )
        model.max_time = self._end - rest - self._began
