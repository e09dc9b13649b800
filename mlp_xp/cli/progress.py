"""How a training shows its progress: a bar on a terminal, a line an epoch elsewhere."""

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
    """What to call after each step, with steps done and steps of the epoch, and each epoch."""

    after_step: Callable[[int, int], object]
    after_epoch: Callable[[Record], None]


class Watch(Callback):
    """Shows how a fit goes, and ends it once ``pressed()`` tells that Ctrl-C was pressed."""

    wants_accuracy = True

    def __init__(self, shown: Display, pressed: Callable[[], bool]) -> None:
        self._shown = shown
        self._pressed = pressed

    def on_step_end(self, model: Any, done: int, n_steps: int) -> bool:
        """Show a step."""
        self._shown.after_step(done, n_steps)
        return self._pressed()

    def on_epoch_end(self, model: Any, record: Record) -> bool:
        """Show an epoch."""
        self._shown.after_epoch(record)
        return self._pressed()


@contextlib.contextmanager
def display(n_epochs: int, n_images: int, end: float | None = None) -> Iterator[Display]:
    """Show a progress bar where stdout is a terminal, else print a line an epoch.

    Where there is an ``end``, of `time.perf_counter`, no more time is left than until then.
    """
    shown = _Shown(n_epochs, n_images, end)
    of = f"/{n_epochs}" if end is None else ""
    if not sys.stdout.isatty():
        width = len(str(n_epochs)) if end is None else 0

        def print_epoch(row: Record) -> None:
            shown.note(row.epoch)
            print(f"epoch {row.epoch:{width}}{of}  {shown.facts(row)}", flush=True)

        yield Display(shown.note_step, print_epoch)
        return
    rich = optional("rich.progress")
    columns = (
        "{task.fields[epoch]}" + of,
        rich.BarColumn(bar_width=None),
        "{task.fields[facts]}",
    )
    with rich.Progress(*columns, expand=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=None, epoch=1, facts="preparing the first step")

        def after_step(done: int, n_steps: int) -> None:
            share = shown.note_step(done, n_steps)
            facts = {"facts": shown.pace} if shown.epoch == 1 else {}
            bar.update(task, completed=share, total=1.0, epoch=shown.epoch, **facts)

        def after_epoch(row: Record) -> None:
            # The iterations of "lbfgs" are epochs without steps.
            share = shown.note(row.epoch)
            facts = shown.facts(row)
            bar.update(task, completed=share, total=1.0, epoch=row.epoch, facts=facts)

        yield Display(after_step, after_epoch)


class _Shown:
    """How far a training is, in numbers and words."""

    def __init__(self, n_epochs: int, n_images: int, end: float | None) -> None:
        self.epoch = 1
        self.pace = ""  # Of the first epoch: its loss and accuracy are known when it ends.
        self._n_epochs = n_epochs
        self._n_images = n_images
        self._start = time.perf_counter()
        self._first_step = 0.0
        self._end = end
        self._pace = Pace()

    def note_step(self, done: int, n_steps: int) -> float:
        """Record a step; return the share that is done."""
        share = self.note(self.epoch - 1 + done / n_steps)
        now = time.perf_counter()
        if done == 1:
            self._first_step = now
        elif self.epoch == 1:
            n_images = self._n_images * (done - 1) / n_steps
            self.pace = f"{n_images / (now - self._first_step):,.0f} images/s  {self._left()}"
        return share

    def note(self, epochs: float) -> float:
        """Record so many epochs; return the share that is done."""
        self.epoch = int(epochs) + 1
        share = epochs / self._n_epochs
        if self._end is not None:
            share = max(share, (time.perf_counter() - self._start) / (self._end - self._start))
        self._pace.update(min(share, 1.0))
        return share

    def facts(self, row: Record) -> str:
        """Put an epoch in words; on a terminal of 80 columns there must be room for the bar."""
        accuracy, validation = row.accuracy, row.validation_score
        return "  ".join(
            [
                f"loss {row.loss:.3f}",
                *([] if accuracy is None else [f"acc {100 * accuracy:.1f} %"]),
                *([] if validation is None else [f"val {100 * validation:.1f} %"]),
                f"{row.n_samples / row.seconds:,.0f} images/s",
                self._left(),
            ]
        )

    def _left(self) -> str:
        left = self._pace.seconds_left()
        if self._end is not None:
            left = min(left, self._end - time.perf_counter())
        return time_left(left)
