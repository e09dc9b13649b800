"""The progress of a fit: a bar on a terminal, otherwise one line per epoch."""

from __future__ import annotations

import time
from typing import Any, cast

from mlp_xp.callbacks import ProgressBar
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.training.tasks import Task, score_of
from mlp_xp.training.loop.records import Record, Running


class Progress(ProgressBar):
    """A callback that displays the progress of a fit, until `close` is called.

    ``end`` is the `time.perf_counter()` value by which the command must end. ``n_before`` is the
    number of epochs before the fit. If ``is_done`` is set, the bar ends at 100 %.
    """

    wants_accuracy = True
    _label = ""

    def __init__(
        self,
        output: Output,
        task: Task,
        model: Any,
        n_samples: int,
        end: float | None = None,
        n_before: int = 0,
    ) -> None:
        super().__init__()
        self.is_done = False
        self._output, self._task, self._n_samples, self._end = output, task, n_samples, end
        self._n_before, self._n_epochs = n_before, model.max_iter
        self._first: tuple[float, float] | None = None
        self._speed: list[str] = []
        self._open(output.open_bar())
        self.stage(model, "preparing data and network")

    def stage(self, model: Any, text: str) -> None:
        """Show what is being done before the first step."""
        self._draw(model, None, [text], self._epoch + 1)

    def on_fit_begin(self, model: Any) -> None:
        """Show that the first step is being prepared, which may include a long compilation."""
        self.stage(model, "preparing the first step")

    def on_progress(self, model: Any, done: int, n_steps: int, running: Running | None) -> None:
        """Show the progress within an epoch."""
        epochs, now = self._epoch + done / n_steps, time.perf_counter()
        if self._first is None:
            self._first = now, epochs
        elif int(self._first[1]) == self._epoch and now > self._first[0]:
            # During the first epoch there is no record yet, so estimate the speed.
            n_samples = self._n_samples * (epochs - self._first[1])
            self._set_speed(n_samples / (now - self._first[0]))
        super().on_progress(model, done, n_steps, running)

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Show the results of an epoch."""
        self._set_speed(record.n_samples / record.seconds)
        super().on_epoch_end(model, record)
        self._print()

    def on_fit_end(self, model: Any) -> None:
        """Ignore the end of the fit; `close` stops the bar."""

    def close(self) -> None:
        """Stop the bar, and leave it on the screen."""
        if self._live is not None:
            self._live.stop(is_done=self.is_done)

    def _measures(self, model: Any, running: Running) -> list[str]:
        scores = self._task.running(running, model)
        return [f"loss {running.loss:.3f}", *self._score, *scores, *self._speed]

    def _score_text(self, model: Any, record: Record) -> str:
        name, score = score_of(model, self._task), cast(float, record.validation_score)
        if name in ("loss", "refinement"):
            return f"val loss {-score:.3f}"
        return f"val score {score:.3f}" if name == "score" else self._task.validation(score)

    def _set_speed(self, per_second: float) -> None:
        self._speed = [f"{per_second:,.0f} {self._output.samples}/s"]

    def _total(self, model: Any, epoch: int) -> str:
        n_epochs = max(self._n_epochs, self._n_planned(model, epoch))
        return "" if self._end is not None else f"/{n_epochs}"

    def _end_time(self, model: Any) -> float | None:
        return self._end

    def _write(self, line: str) -> None:
        self._output.print(line)
