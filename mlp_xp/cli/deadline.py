"""A command that ends in time: what a training may take of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp.callbacks import Callback

__all__ = ["Deadline"]

# What is kept for the end beside a prediction and the pictures, which are measured: writing the
# model, and the end of the process, which lets go of its libraries.
_REST = 1.5
_LEAST = 0.1  # of the time is for the training, whatever else must go.
_SLICE = 512


class Deadline(Callback):
    """Leaves a fit the time that the rest of the command will not need.

    Before the first step a prediction for some training images and a picture of it tell how long
    those of the test images will take, also where other programs are at work. Where the time is
    short, views at the test and then pictures go, and it is said; a tenth of the time is for the
    training in any case.

    Parameters
    ----------
    end : float
        When the command must end, of `time.perf_counter`. The fit must begin right now.
    x : (images, features) array
    n_test : int
    draw : callable
        ``draw(predicted)`` draws a picture.

    Attributes
    ----------
    has_views, has_pictures : bool
        Whether there is time for views at the test, and for pictures.
    """

    def __init__(
        self, end: float, x: np.ndarray, n_test: int, draw: Callable[[np.ndarray], None]
    ) -> None:
        self.has_views = self.has_pictures = True
        self._end = end
        self._x = x[:_SLICE]
        self._n_test = n_test
        self._draw = draw
        self._began = time.perf_counter()

    def on_fit_begin(self, model: Any) -> None:
        """Set the time of the fit."""
        passed = model.max_time - (self._end - time.perf_counter())
        # Where the time is over there is nothing to measure, and nothing but the test is done.
        is_over = passed >= model.max_time
        test, views, pictures = (0.0, 0.0, 0.0) if is_over else self._measure(model)
        del self._x, self._draw  # The data are to go as soon as they are not needed.
        now = time.perf_counter()
        least = _LEAST * model.max_time
        left = self._end - now - _REST - test - views - pictures
        if left < least and model.tta is not None:
            self.has_views = False
            left += views
        if left < least:
            self.has_pictures = False
            left += pictures
        if not (self.has_views and self.has_pictures):
            print(self._note(model.max_time, passed, test, least - left), file=sys.stderr)
        model.max_time = now + max(left, least) - self._began

    def _measure(self, model: Any) -> tuple[float, float, float]:
        """Return the seconds for a plain test, for the views on top of it, and for pictures."""
        scale = 1.25 * self._n_test / len(self._x)

        def seconds(**settings: Any) -> float:
            model.predict(self._x, **settings)
            start = time.perf_counter()
            self._predicted = model.predict(self._x, **settings)
            return scale * (time.perf_counter() - start)

        plain = seconds(tta=None)
        views = 0.0 if model.tta is None else max(0.0, seconds() - plain)
        start = time.perf_counter()
        self._draw(self._predicted)
        del self._predicted
        # Of the two pictures at the end neither loads a library any more.
        return plain, views, 1.5 * (time.perf_counter() - start)

    def _note(self, max_time: float, passed: float, test: float, late: float) -> str:
        dropped = [] if self.has_views else ["no views are averaged over at the test"]
        dropped += [] if self.has_pictures else ["no pictures are drawn"]
        dropped += [f"the command ends about {late:.1f} s late"] if late > 0 else []
        return (
            f"note: max_time of {max_time:g} s is short: {passed:.1f} s have passed before the "
            f"training, and the test takes {test:.1f} s, so {', '.join(dropped)}"
        )
