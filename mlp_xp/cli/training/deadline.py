"""The deadline of a command, and the time that it leaves for training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlp_xp.callbacks import Callback
from mlp_xp.cli.terminal.lines import print_note

# Seconds reserved for the end of a command. On two busy CPU cores (AMD EPYC), with NumPy, PyTorch
# or JAX, writing the model took 0.1 s, and exiting took 0.5 to 1.5 s. Loading matplotlib, plotting
# and writing the report took 1.5 s of CPU time for 10 classes, and 2.5 s for 100.
END = 1.5
REPORT = 2.6
_LEAST_FRACTION = 0.1  # The minimum fraction of ``max_time`` for training.
# Predictions are timed for a sixteenth of the test samples, within these limits.
_LEAST_TIMED, _MOST_TIMED = 512, 8192


@dataclass(repr=False, eq=False)
class Deadline(Callback):
    """A callback that sets ``model.max_time`` so that time is left to test and save.

    It times predictions for training images ``x`` to estimate the duration of the test. If time is
    short, it drops test-time augmentation first (``has_views``), then plots (``has_report``), and
    prints a note. ``end`` is the `time.perf_counter()` value by which the command must end, or
    None. ``used`` is the time in seconds that a resumed run has already used. ``stage(model,
    text)`` displays the current stage.
    """

    end: float | None
    x: np.ndarray
    n_test: int
    used: float = 0.0
    stage: Callable[[Any, str], object] = lambda model, text: None
    has_views: bool = field(default=True, init=False)
    has_report: bool = field(default=True, init=False)
    start: float = field(default_factory=lambda: time.perf_counter(), init=False)

    def on_fit_begin(self, model: Any) -> None:
        """Set the time limit of the fit."""
        n_timed = min(len(self.x), max(_LEAST_TIMED, min(_MOST_TIMED, self.n_test // 16)))
        x = self.x[:n_timed]
        del self.x  # Allow the training data to be freed.
        if self.end is None:
            return
        self.stage(model, "timing predictions")
        passed = model.max_time - (self.end - time.perf_counter())
        is_over = passed >= model.max_time
        test, views = (0.0, 0.0) if is_over else self._test_seconds(model, x)
        now = time.perf_counter()
        least = _LEAST_FRACTION * model.max_time
        left = self.end - now - END - REPORT - test - views
        if left < least and model.tta is not None:
            self.has_views = False
            left += views
        if left < least:
            self.has_report = False
            left += REPORT
        if not (self.has_views and self.has_report):
            print_note(self._note(model.max_time, passed, test, least - left))
        model.max_time = self.used + now + max(left, least) - self.start

    def _test_seconds(self, model: Any, x: np.ndarray) -> tuple[float, float]:
        """Estimate the time of a test, and the additional time of test-time augmentation."""
        scale = 1.25 * self.n_test / len(x)

        def seconds(**settings: Any) -> float:
            model.predict(x, **settings)
            start = time.perf_counter()
            model.predict(x, **settings)
            return scale * (time.perf_counter() - start)

        plain = seconds(tta=None)
        return plain, 0.0 if model.tta is None else max(0.0, seconds() - plain)

    def _note(self, max_time: float, passed: float, test: float, late: float) -> str:
        dropped = [] if self.has_views else ["the test uses no test-time augmentation"]
        dropped += [] if self.has_report else ["no plots are drawn"]
        dropped += [f"the command ends about {late:.1f} s late"] if late > 0 else []
        return (
            f"max_time of {max_time:g} s is short: {passed:.1f} s have passed before the "
            f"training, and the test takes {test:.1f} s, so {', '.join(dropped)}"
        )
