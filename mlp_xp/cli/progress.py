"""How a training shows its progress: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mlp_xp._optional import optional

__all__ = ["Display", "display"]


class Display(NamedTuple):
    """What to call after each step, with steps done and steps of the epoch, and each epoch."""

    after_step: Callable[[int, int], None]
    after_epoch: Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def display(n_epochs: int, n_images: int) -> Iterator[Display]:
    """Show a progress bar where stdout is a terminal, else print a line an epoch."""
    start = time.perf_counter()
    facts = _facts(n_epochs, start)
    if not sys.stdout.isatty():
        width = len(str(n_epochs))
        yield Display(
            lambda *_: None,
            lambda row: print(f"epoch {row['epoch']:{width}}/{n_epochs}  {facts(row)}", flush=True),
        )
        return
    rich = optional("rich.progress")
    columns = (
        "{task.fields[epoch]}/" + str(n_epochs),
        rich.BarColumn(bar_width=None),
        "{task.fields[facts]}",
    )
    with rich.Progress(*columns, expand=True, refresh_per_second=4) as bar:
        task = bar.add_task("", total=None, epoch=1, facts="")
        epoch = 1

        def after_step(done: int, n_steps: int) -> None:
            completed, total = (epoch - 1) * n_steps + done, n_epochs * n_steps
            bar.update(task, completed=completed, total=total, epoch=epoch)
            if epoch == 1:  # Loss and accuracy are known when it ends; the pace is known at once.
                seconds = time.perf_counter() - start
                pace = f"{n_images * done / n_steps / seconds:,.0f} images/s"
                bar.update(task, facts=f"{pace}  {_left(seconds / completed * total - seconds)}")

        def after_epoch(row: dict[str, Any]) -> None:
            nonlocal epoch
            epoch = row["epoch"] + 1
            bar.update(task, facts=facts(row))

        yield Display(after_step, after_epoch)


def _left(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02} left"


def _facts(n_epochs: int, start: float) -> Callable[[dict[str, Any]], str]:
    # On a terminal of 80 columns there must be room left for the bar.
    def facts(row: dict[str, Any]) -> str:
        per_epoch = (time.perf_counter() - start) / row["epoch"]
        validation = row["validation_accuracy"]
        return "  ".join(
            [
                f"loss {row['loss']:.3f}",
                f"acc {100 * row['accuracy']:.1f} %",
                *([] if validation is None else [f"val {100 * validation:.1f} %"]),
                f"{row['n_samples'] / row['seconds']:,.0f} images/s",
                _left(per_epoch * (n_epochs - row["epoch"])),
            ]
        )

    return facts
