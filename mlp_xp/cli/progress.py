"""The progress of a training: a bar on a terminal, otherwise a line for each epoch."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mlp_xp._utils.optional import optional
from mlp_xp.callbacks import Callback, time_left
from mlp_xp.training.records import Record
from mlp_xp.training.time_budget import Pace

__all__ = ["Display", "Watch", "display"]


class Display(NamedTuple):
    """Two functions: one to call after each step, one after each epoch.

    ``after_step`` takes the steps done and the steps of the epoch, ``after_epoch`` the record.
    """

    after_step: Callable[[int, int], object]
    after_epoch: Callable[[Record], None]


class Watch(Callback):
    """Displays the progress of a fit, and stops it once ``pressed()`` is true, after Ctrl-C."""

    wants_accuracy = True

    def __init__(self, progress: Display, pressed: Callable[[], bool]) -> None:
        self._progress = progress
        self._pressed = pressed

    def on_step_end(self, model: Any, done: int, n_steps: int) -> bool:
        """Report a step."""
        self._progress.after_step(done, n_steps)
        return self._pressed()

    def on_epoch_end(self, model: Any, record: Record) -> bool:
        """Report an epoch."""
        self._progress.after_epoch(record)
        return self._pressed()


@contextlib.contextmanager
def display(
    n_epochs: int, n_images: int, end: float | None = None, n_done: int = 0
) -> Iterator[Display]:
    """Draw a progress bar if stdout is a terminal, else print a line for each epoch.

    ``end`` is when the command must end, on the clock `time.perf_counter`; it limits the time left.
    ``n_done`` epochs were done before.
    """
    progress = _Progress(n_epochs, n_images, end, n_done)
    total = f"/{n_epochs}" if end is None else ""
    if not sys.stdout.isatty():
        width = len(str(n_epochs)) if end is None else 0

        def print_epoch(record: Record) -> None:
            progress.update(record.epoch)
            print(f"epoch {record.epoch:{width}}{total}  {progress.facts(record)}", flush=True)

        yield Display(progress.update_step, print_epoch)
        return
    rich = optional("rich.progress")
    columns = (
        "{task.fields[epoch]}" + total,
        rich.BarColumn(bar_width=None),
        "{task.fields[facts]}",
    )
    with rich.Progress(*columns, expand=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=None, epoch=1, facts="preparing the first step")

        def after_step(done: int, n_steps: int) -> None:
            fraction = progress.update_step(done, n_steps)
            facts = {"facts": progress.speed} if progress.epoch == 1 else {}
            bar.update(task, completed=fraction, total=1.0, epoch=progress.epoch, **facts)

        def after_epoch(record: Record) -> None:
            # The epochs of "lbfgs" have no steps.
            fraction = progress.update(record.epoch)
            facts = progress.facts(record)
            bar.update(task, completed=fraction, total=1.0, epoch=record.epoch, facts=facts)

        yield Display(after_step, after_epoch)


class _Progress:
    """The state of a training, as numbers and as text.

    Attributes
    ----------
    epoch : int
        The epoch in progress.
    speed : str
        Images per second and time left in the first epoch, whose loss is not known yet.
    """

    def __init__(self, n_epochs: int, n_images: int, end: float | None, n_done: int) -> None:
        self.epoch = n_done + 1
        self.speed = ""
        self._n_epochs = n_epochs
        self._n_images = n_images
        self._start = time.perf_counter()
        self._first_step = 0.0
        self._end = end
        self._pace = Pace()

    def update_step(self, done: int, n_steps: int) -> float:
        """Record a step; return the fraction of the training that is done."""
        fraction = self.update(self.epoch - 1 + done / n_steps)
        now = time.perf_counter()
        if done == 1:
            self._first_step = now
        elif self.epoch == 1:
            n_images = self._n_images * (done - 1) / n_steps
            speed = n_images / (now - self._first_step)
            self.speed = f"{speed:,.0f} images/s  {self._time_left()}"
        return fraction

    def update(self, epochs: float) -> float:
        """Record the number of epochs done; return the fraction of the training that is done."""
        self.epoch = int(epochs) + 1
        fraction = epochs / self._n_epochs
        if self._end is not None:
            elapsed = time.perf_counter() - self._start
            fraction = max(fraction, elapsed / (self._end - self._start))
        self._pace.update(min(fraction, 1.0))
        return fraction

    def facts(self, record: Record) -> str:
        """Format an epoch, short enough for a bar beside it on a terminal of 80 columns."""
        accuracy, validation = record.accuracy, record.validation_score
        return "  ".join(
            [
                f"loss {record.loss:.3f}",
                *([] if accuracy is None else [f"acc {100 * accuracy:.1f} %"]),
                *([] if validation is None else [f"val {100 * validation:.1f} %"]),
                f"{record.n_samples / record.seconds:,.0f} images/s",
                self._time_left(),
            ]
        )

    def _time_left(self) -> str:
        seconds = self._pace.seconds_left()
        if self._end is not None:
            seconds = min(seconds, self._end - time.perf_counter())
        return time_left(seconds)
