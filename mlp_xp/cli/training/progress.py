"""The progress of a fit: a bar on a terminal, otherwise one line per epoch."""

from __future__ import annotations

import time
from typing import Any

from mlp_xp.callbacks import Callback, time_left
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.training.tasks import Task, score_of
from mlp_xp.training.loop.records import Record, Running
from mlp_xp.training.loop.time_budget import Pace


class Progress(Callback):
    """A callback that displays the progress of a fit, until `close` is called.

    ``end`` is the time of `time.perf_counter` at which the command must end, and ``n_done`` the
    number of epochs done before a resumed fit. The bar ends at 100 % if ``is_done`` is set.
    """

    wants_accuracy = True

    def __init__(
        self,
        output: Output,
        task: Task,
        n_epochs: int,
        n_samples: int,
        end: float | None = None,
        n_done: int = 0,
    ) -> None:
        self.is_done = False
        self._output, self._task = output, task
        self._n_epochs, self._n_samples, self._n_done = n_epochs, n_samples, n_done
        self._start, self._end = time.perf_counter(), end
        self._pace = Pace()
        self._total = f"/{n_epochs}" if end is None else ""
        self._validation: list[str] = []
        self._first: tuple[float, float] | None = None
        self._speed: list[str] = []
        self._bar = output.open_bar()
        self.stage("preparing data and network")

    def stage(self, text: str) -> None:
        """Show what is being done before the first step."""
        if self._bar is not None:
            self._bar.update(f"{self._n_done + 1}{self._total}", None, [text], None)

    def on_fit_begin(self, model: Any) -> None:
        """Show that the first step is next, in which code may be compiled."""
        self.stage("preparing the first step")

    def on_progress(self, model: Any, done: int, n_steps: int, running: Running | None) -> None:
        """Show the progress within an epoch."""
        epochs = self._n_done + done / n_steps
        speed, now = self._speed, time.perf_counter()
        if self._first is None:
            self._first = now, epochs
        elif not speed and now > self._first[0]:
            # Estimate the speed during the first epoch, which has no record yet.
            n_samples = self._n_samples * (epochs - self._first[1])
            speed = self._speed_text(n_samples / (now - self._first[0]))
        measures = self._validation
        if running is not None:
            measures = self._measures(model, running)
        self._draw(self._n_done + 1, self._fraction(epochs), [*measures, *speed])

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Show the results of an epoch."""
        self._n_done = record.epoch
        fraction = self._fraction(record.epoch)
        self._speed = self._speed_text(record.n_samples / record.seconds)
        if (score := record.validation_score) is not None:
            name = score_of(model, self._task)
            if name in ("loss", "refinement"):
                text = f"val loss {-score:.3f}"
            elif name == "score":
                text = f"val score {score:.3f}"
            else:
                text = self._task.validation(score)
            self._validation = [text]
        measures = self._measures(model, Running(record.loss, record.accuracy))
        self._draw(record.epoch, fraction, [*measures, *self._speed])
        if self._bar is None:
            width = len(str(self._n_epochs)) if self._end is None else 0
            shown = "  ".join([*measures, *self._speed, time_left(self._seconds_left())])
            self._output.print(f"epoch {record.epoch:{width}}{self._total}  {shown}")

    def close(self) -> None:
        """Stop the bar, and leave it on the screen."""
        if self._bar is not None:
            self._bar.stop(is_done=self.is_done)

    def _draw(self, epoch: int, fraction: float, shown: list[str]) -> None:
        if self._bar is not None:
            self._bar.update(f"{epoch}{self._total}", fraction, shown, self._seconds_left())

    def _measures(self, model: Any, running: Running) -> list[str]:
        """Return loss and scores, the most important first."""
        scores = self._task.running(running, model)
        return [f"loss {running.loss:.3f}", *self._validation, *scores]

    def _fraction(self, epochs: float) -> float:
        """Return the completed fraction of the training, and update the estimated time left."""
        fraction = epochs / self._n_epochs
        if self._end is not None:
            elapsed = time.perf_counter() - self._start
            fraction = max(fraction, elapsed / (self._end - self._start))
        self._pace.update(min(fraction, 1.0))
        return min(fraction, 1.0)

    def _seconds_left(self) -> float:
        seconds = self._pace.seconds_left()
        return seconds if self._end is None else min(seconds, self._end - time.perf_counter())

    def _speed_text(self, per_second: float) -> list[str]:
        return [f"{per_second:,.0f} {self._output.samples}/s"]
