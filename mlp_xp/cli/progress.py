"""How a training shows its progress: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mlp_xp._optional import optional
from mlp_xp.callbacks import Callback
from mlp_xp.training import Record

__all__ = ["Display", "Watch", "display"]


class Display(NamedTuple):
    """What to call after each step, with steps done and steps of the epoch, and each epoch."""

    after_step: Callable[[int, int], None]
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
    start = time.perf_counter()
    of = f"/{n_epochs}" if end is None else ""
    facts = _facts(n_epochs, start, end)
    if not sys.stdout.isatty():
        width = len(str(n_epochs)) if end is None else 0
        yield Display(
            lambda *_: None,
            lambda row: print(f"epoch {row.epoch:{width}}{of}  {facts(row)}", flush=True),
        )
        return
    rich = optional("rich.progress")
    columns = (
        "{task.fields[epoch]}" + of,
        rich.BarColumn(bar_width=None),
        "{task.fields[facts]}",
    )
    with rich.Progress(*columns, expand=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=None, epoch=1, facts="")
        epoch = 1

        def show(epochs: float, **fields: Any) -> float:
            seconds = time.perf_counter() - start
            share = epochs / n_epochs
            if end is not None:
                share = max(share, seconds / (end - start))
            bar.update(task, completed=share, total=1.0, **fields)
            return share

        def after_step(done: int, n_steps: int) -> None:
            share = show(epoch - 1 + done / n_steps, epoch=epoch)
            if epoch == 1:  # Loss and accuracy are known when it ends; the pace is known at once.
                seconds = time.perf_counter() - start
                pace = f"{n_images * done / n_steps / seconds:,.0f} images/s"
                bar.update(task, facts=f"{pace}  {_left(seconds / share - seconds)}")

        def after_epoch(row: Record) -> None:
            nonlocal epoch
            epoch = row.epoch + 1
            # The iterations of "lbfgs" are epochs without steps.
            show(row.epoch, epoch=row.epoch, facts=facts(row))

        yield Display(after_step, after_epoch)


def _left(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{seconds:02} left"


def _facts(n_epochs: int, start: float, end: float | None) -> Callable[[Record], str]:
    # On a terminal of 80 columns there must be room left for the bar.
    def facts(row: Record) -> str:
        now = time.perf_counter()
        left = (now - start) / row.epoch * (n_epochs - row.epoch)
        left = left if end is None else min(left, end - now)
        accuracy, validation = row.accuracy, row.validation_score
        return "  ".join(
            [
                f"loss {row.loss:.3f}",
                *([] if accuracy is None else [f"acc {100 * accuracy:.1f} %"]),
                *([] if validation is None else [f"val {100 * validation:.1f} %"]),
                f"{row.n_samples / row.seconds:,.0f} images/s",
                _left(left),
            ]
        )

    return facts
