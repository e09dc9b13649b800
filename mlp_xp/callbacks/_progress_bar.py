"""A progress bar."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any, cast

from mlp_xp._utils.display.progress import LiveBar, NotebookBar, open_bar, time_left
from mlp_xp._utils.optional import optional
from mlp_xp._utils.signals import ctrl_c_pressed
from mlp_xp.callbacks._base import Live
from mlp_xp.plotting import TrainingCurvesDisplay, in_notebook_colors, inline_svg
from mlp_xp.training.loop.loop_settings import epochs_after_restart
from mlp_xp.training.loop.records import Record, Running
from mlp_xp.training.loop.time_budget import Pace

# The minimum pause between two redraws, as a multiple of the time that a redraw takes.
_CURVE_PAUSE = 20


class ProgressBar(Live):
    """A progress bar with epoch, running loss, validation score and time left.

    The time left is estimated from the pace of the steps, excluding compilation before or during
    the first step. If stdout is not a terminal, about twenty lines are printed instead, the last at
    the end of the fit. If ``max_time`` is expected to end the fit, the bar shows the elapsed
    fraction of this time. Requires the ``cli`` extra.

    Parameters
    ----------
    curve : bool, default=False
        Whether to plot loss and score below the bar in a notebook, in at most 5 % of the time.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import ProgressBar
    >>> model = MLPClassifier(max_iter=2, learning_rate="cosine", callbacks=[ProgressBar()])
    >>> model = model.fit([[0.0], [1.0]], [0, 1])  # doctest: +ELLIPSIS
    epoch 1/2  loss ... left
    epoch 2/2  loss ... left
    """

    _label = "epoch "
    _n_before = 0  # The number of epochs before the fit, which are added to the epochs shown.

    def __init__(self, *, curve: bool = False) -> None:
        self.curve = curve

    def on_fit_begin(self, model: Any) -> None:
        """Start a new bar."""
        optional("rich.console")
        self._open(open_bar())
        self._draw(model, None, ["preparing the first step"], 1)

    def _open(self, bar: LiveBar | NotebookBar | None) -> None:
        """Start showing progress; print lines if there is no bar."""
        self._live, self._next_curve, self._fitted = bar, 0.0, None
        self._start, self._epoch, self._line = time.perf_counter(), 0, ""
        self._printed, self._pace, self._is_between_epochs = 0, Pace(), False
        self._score: list[str] = []
        self._texts: list[str] = []

    def on_fit_resume(self, model: Any) -> None:
        """Start a bar that includes the epochs so far."""
        self.on_fit_begin(model)
        self._epoch = model.n_iter_

    def on_progress(self, model: Any, done: int, n_steps: int, running: Running | None) -> None:
        """Update the bar with the loss of the epoch so far."""
        self._is_between_epochs = False
        fraction = self._fraction(model, self._epoch + done / n_steps)
        if running is not None:
            self._texts = self._measures(model, running)
        self._draw(model, fraction, self._texts, self._epoch + 1)

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Update the bar with the loss and score of the epoch."""
        # Count epochs here, because record.epoch includes the epochs before a warm start.
        self._epoch += 1
        self._is_between_epochs = True
        if record.validation_score is not None:
            self._score = [self._score_text(model, record)]
        self._texts = self._measures(model, Running(record.loss, record.accuracy))
        fraction = self._fraction(model, self._epoch)
        self._draw(model, fraction, self._texts, self._epoch)
        self._fitted = model
        if time.perf_counter() >= self._next_curve:
            self._draw_curve()
        total = self._total(model, self._epoch)
        epoch = f"{self._n_before + self._epoch:{max(len(total) - 1, 0)}}{total}"
        self._line = "  ".join(
            [f"epoch {epoch}", *self._texts, time_left(self._seconds_left(model))]
        )
        if math.floor(20 * fraction) != self._printed or model.max_iter <= 20:
            self._printed = math.floor(20 * fraction)
            self._print()

    def on_fit_end(self, model: Any) -> None:
        """Stop the bar and leave it on the screen, at 100 % unless the fit was interrupted."""
        self._draw_curve()
        bar, self._live, self._fitted = self._live, None, None
        if bar is not None:
            bar.stop(is_done=self._is_between_epochs and not ctrl_c_pressed())
            self._line = ""
        self._print()

    def _measures(self, model: Any, running: Running) -> list[str]:
        """Return loss and score, the most important first."""
        return [f"loss {running.loss:.4f}", *self._score]

    def _score_text(self, model: Any, record: Record) -> str:
        """Return the validation score as text; a loss is shown as it is, not negated."""
        score = cast(float, record.validation_score)
        if getattr(model, "scoring", None) == "refinement":
            return f"refinement {-score:.4f}"
        if record.validation_loss is not None and score == -record.validation_loss:
            return f"validation loss {-score:.4f}"
        return f"validation {score:.4f}"

    def _n_planned(self, model: Any, epochs: float) -> int:
        """Return the planned number of epochs, with those after a restart once it has begun."""
        most: int = model.max_iter
        return most if epochs <= most else most + epochs_after_restart(most)

    def _total(self, model: Any, epoch: int) -> str:
        return f"/{self._n_planned(model, epoch)}"

    def _draw(self, model: Any, fraction: float | None, texts: list[str], epoch: int) -> None:
        if self._live is not None:
            left = None if fraction is None else self._seconds_left(model)
            self._live.update(
                f"{self._label}{self._n_before + epoch}{self._total(model, epoch)}",
                fraction,
                texts,
                left,
            )

    def _fraction(self, model: Any, epochs: float) -> float:
        """Return the completed fraction of the fit, and update the pace."""
        fraction, end = epochs / self._n_planned(model, epochs), self._end_time(model)
        if end is not None:
            passed = (time.perf_counter() - self._start) / (end - self._start)
            fraction = min(max(fraction, passed), 1.0)
        self._pace.update(fraction)
        return fraction

    def _end_time(self, model: Any) -> float | None:
        max_time = getattr(model, "max_time", None)
        return None if max_time is None else self._start + max_time

    def _seconds_left(self, model: Any) -> float:
        seconds, end = self._pace.seconds_left(), self._end_time(model)
        return seconds if end is None else min(seconds, end - time.perf_counter())

    def _draw_curve(self) -> None:
        """Draw the training curves below a notebook's progress bar."""
        if not (self.curve and self._fitted is not None and isinstance(self._live, NotebookBar)):
            return
        start = time.perf_counter()
        draw = partial(_draw_curves, self._fitted)
        svg = inline_svg(draw, 9.0, 2.8, "training curves")
        self._live.draw_below(in_notebook_colors(svg))
        end = time.perf_counter()
        self._next_curve = end + _CURVE_PAUSE * (end - start)

    def _print(self) -> None:
        if self._line and self._live is None:
            self._write(self._line)
        self._line = ""

    def _write(self, line: str) -> None:
        print(line, flush=True)


def _draw_curves(model: Any, figure: Any) -> None:
    TrainingCurvesDisplay.from_estimator(model, ax=figure.subplots())
