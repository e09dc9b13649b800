"""The progress of a training: a bar on a terminal, otherwise a line for each epoch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from mlp_xp.callbacks import Callback, time_left
from mlp_xp.cli.terminal.output import Output
from mlp_xp.cli.training.tasks import Task
from mlp_xp.training.loop.records import Record, Running
from mlp_xp.training.loop.time_budget import Pace

__all__ = ["Progress", "Watch", "display"]


class Watch(Callback):
    """Displays the progress of a fit."""

    wants_accuracy = True

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_fit_begin(self, model: Any) -> None:
        """Report that the first step, which may compile, comes next."""
        self._progress.model = model
        self._progress.stage("preparing the first step")

    def on_progress(self, model: Any, done: int, n_steps: int, running: Running | None) -> None:
        """Report the steps so far."""
        self._progress.update(done, n_steps, running)

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Report an epoch."""
        self._progress.end_epoch(record)


@contextlib.contextmanager
def display(
    output: Output,
    task: Task,
    n_epochs: int,
    n_samples: int,
    end: float | None = None,
    n_done: int = 0,
) -> Iterator[Progress]:
    """Draw a progress bar on a terminal, else print a line for each epoch.

    Parameters
    ----------
    output : Output
    task : Task
        How scores are shown.
    n_epochs, n_samples : int
        In the training.
    end : float, optional
        When the command must end, on the clock `time.perf_counter`; it limits the time left.
    n_done : int, default=0
        The epochs that were done before.

    Yields
    ------
    Progress
        The bar ends at 100 % if its `is_done` is set.
    """
    progress = Progress(output, task, n_epochs, n_samples, end, n_done)
    try:
        yield progress
    finally:
        progress.close()


class Progress:
    """The progress of a training, as a bar or as lines.

    Attributes
    ----------
    is_done : bool
        Whether the training has come to its end.
    model : MLPClassifier or MLPRegressor or None
        The network that is trained, once it is known.
    """

    def __init__(
        self,
        output: Output,
        task: Task,
        n_epochs: int,
        n_samples: int,
        end: float | None,
        n_done: int,
    ) -> None:
        self.is_done, self.model = False, None
        self._task = task
        self._output, self._n_epochs, self._n_samples = output, n_epochs, n_samples
        self._start, self._end = time.perf_counter(), end
        self._pace = Pace()
        self._n_done = n_done
        self._total = f"/{n_epochs}" if end is None else ""
        self._validation: list[str] = []
        self._first: tuple[float, float] | None = None
        self._speed: list[str] = []
        self._bar = output.open_bar()
        self.stage("preparing data and network")

    def stage(self, text: str) -> None:
        """Report what is done before the first step."""
        if self._bar is not None:
            self._bar.update(self._label(self._n_done + 1), None, [text], None)

    def update(self, done: int, n_steps: int, running: Running | None) -> None:
        """Report the steps of an epoch so far."""
        epochs = self._n_done + done / n_steps
        speed, now = self._speed, time.perf_counter()
        if self._first is None:
            self._first = now, epochs
        elif not speed and now > self._first[0]:
            # In the first epoch, whose record is still to come.
            n_samples = self._n_samples * (epochs - self._first[1])
            speed = self._speed_of(n_samples / (now - self._first[0]))
        self._draw(self._n_done + 1, self._share(epochs), running, speed)

    def end_epoch(self, record: Record) -> None:
        """Report an epoch."""
        self._n_done = record.epoch
        share, running = self._share(record.epoch), Running(record.loss, record.accuracy)
        self._speed = self._speed_of(record.n_samples / record.seconds)
        self._validation = self._task.validation(record) or self._validation
        self._draw(record.epoch, share, running, self._speed)
        if self._bar is None:
            width = len(str(self._n_epochs)) if self._end is None else 0
            facts = [*self._facts(running), *self._speed, time_left(self._seconds_left())]
            self._output.print(f"epoch {record.epoch:{width}}{self._total}  {'  '.join(facts)}")

    def close(self) -> None:
        """Stop the bar, and leave it on the screen."""
        if self._bar is not None:
            self._bar.stop(is_done=self.is_done)

    def _draw(self, epoch: int, share: float, running: Running | None, speed: list[str]) -> None:
        if self._bar is not None:
            facts = [*self._facts(running), *speed]
            self._bar.update(self._label(epoch), share, facts, self._seconds_left())

    def _facts(self, running: Running | None) -> list[str]:
        """Return loss and scores, the most important first."""
        if running is None:
            return self._validation
        return [
            f"loss {running.loss:.3f}",
            *self._validation,
            *self._task.running(running, self.model),
        ]

    def _label(self, epoch: int) -> str:
        return f"{epoch}{self._total}"

    def _share(self, epochs: float) -> float:
        """Return the share of the training that is done, and update the pace."""
        share = epochs / self._n_epochs
        if self._end is not None:
            elapsed = time.perf_counter() - self._start
            share = max(share, elapsed / (self._end - self._start))
        self._pace.update(min(share, 1.0))
        return min(share, 1.0)

    def _seconds_left(self) -> float:
        seconds = self._pace.seconds_left()
        return seconds if self._end is None else min(seconds, self._end - time.perf_counter())

    def _speed_of(self, per_second: float) -> list[str]:
        return [f"{per_second:,.0f} {self._output.samples}/s"]
