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
def display(n_epochs: int) -> Iterator[Display]:
    """Show a progress bar where stdout is a terminal, else print a line an epoch."""
    facts = _facts(n_epochs, time.perf_counter())
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
            completed = (epoch - 1) * n_steps + done
            bar.update(task, completed=completed, total=n_epochs * n_steps, epoch=epoch)

        def after_epoch(row: dict[str, Any]) -> None:
            nonlocal epoch
            epoch = row["epoch"] + 1
            bar.update(task, facts=facts(row))

        yield Display(after_step, after_epoch)


def _facts(n_epochs: int, start: float) -> Callable[[dict[str, Any]], str]:
    # On a terminal of 80 columns there must be room left for the bar.
    def facts(row: dict[str, Any]) -> str:
        per_epoch = (time.perf_counter() - start) / row["epoch"]
        minutes, seconds = divmod(round(per_epoch * (n_epochs - row["epoch"])), 60)
        validation = row["validation_accuracy"]
        return "  ".join(
            [
                f"loss {row['loss']:.3f}",
                f"acc {100 * row['accuracy']:.1f} %",
                *([] if validation is None else [f"val {100 * validation:.1f} %"]),
                f"{row['n_samples'] / row['seconds']:,.0f} images/s",
                f"{minutes}:{seconds:02} left",
            ]
        )

    return facts
