"""A progress bar."""

from __future__ import annotations

import math
import time
from typing import Any

from mlp_xp._utils.optional import optional
from mlp_xp._utils.progress import time_left
from mlp_xp.callbacks._base import Live
from mlp_xp.training.records import Record
from mlp_xp.training.time_budget import Pace

__all__ = ["ProgressBar"]


class ProgressBar(Live):
    """A progress bar with epoch, loss, validation score and time left.

    The time left is estimated from the pace of the steps, without compilation before or in the
    first one. Where stdout is no terminal, about twenty lines are printed instead, the last at the
    end. With ``max_time`` the bar follows the time where that ends the fit. Needs the ``cli``
    extra.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import ProgressBar
    >>> model = MLPClassifier(max_iter=2, learning_rate="cosine", callbacks=[ProgressBar()])
    >>> model = model.fit([[0.0], [1.0]], [0, 1])  # doctest: +ELLIPSIS
    epoch 1/2  loss ... left
    epoch 2/2  loss ... left
    """

    def on_fit_begin(self, model: Any) -> None:
        """Start a new bar."""
        self._start, self._next, self._epoch, self._line = time.perf_counter(), 0.0, 0, ""
        self._printed, self._pace = 0, Pace()
        rich, console = optional("rich.progress"), optional("rich.console").Console()
        # FORCE_COLOR makes rich take a file for a terminal; a bar in a file is garbage.
        if console.is_interactive and console.file.isatty():
            columns = (
                f"epoch {{task.fields[epoch]}}/{model.max_iter}",
                rich.BarColumn(bar_width=None),
                "{task.fields[facts]}",
                "{task.fields[left]}",
            )
            bar = rich.Progress(*columns, console=console, expand=True, refresh_per_second=4)
            bar.add_task("", total=None, epoch=1, facts="preparing the first step", left="")
            bar.start()
            self._live = bar

    def on_fit_resume(self, model: Any) -> None:
        """Start a bar that counts the epochs so far."""
        self.on_fit_begin(model)
        self._epoch = model.n_iter_

    def on_step_end(self, model: Any, done: int, n_steps: int) -> None:
        """Update the bar, at most ten times a second."""
        now = time.perf_counter()
        share = self._share(model, (self._epoch * n_steps + done) / n_steps)
        if self._live is not None and (now >= self._next or done == n_steps):
            self._next = now + 0.1
            facts = {} if self._epoch else {"facts": ""}
            self._live.update(
                0, completed=share, total=1.0, epoch=self._epoch + 1, left=self._left(), **facts
            )

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Update the bar with the loss and score of the epoch."""
        self._epoch += 1  # Counted here: the records of a warm start go on from the fit before.
        score = record.validation_score
        facts = f"loss {record.loss:.4f}" + ("" if score is None else f"  validation {score:.4f}")
        share = self._share(model, self._epoch)
        if self._live is not None:
            # The iterations of "lbfgs" are epochs without steps.
            self._live.update(
                0, completed=share, total=1.0, epoch=self._epoch, facts=facts, left=self._left()
            )
            return
        epoch = f"{self._epoch:{len(str(model.max_iter))}}/{model.max_iter}"
        self._line = f"epoch {epoch}  {facts}  {self._left()}"
        if math.floor(20 * share) > self._printed or model.max_iter <= 20:
            self._printed = math.floor(20 * share)
            self._print()

    def on_fit_end(self, model: Any) -> None:
        """Stop the bar and leave it on the screen."""
        bar, self._live = self._live, None
        if bar is not None:
            bar.stop()
        self._print()

    def _share(self, model: Any, epochs: float) -> float:
        """Return the fraction of the fit that is done, and update the pace."""
        share, max_time = epochs / model.max_iter, getattr(model, "max_time", None)
        if max_time is not None:
            share = min(max(share, (time.perf_counter() - self._start) / max_time), 1.0)
        self._pace.update(share)
        return share

    def _left(self) -> str:
        return time_left(self._pace.seconds_left())

    def _print(self) -> None:
        if self._line:
            print(self._line, flush=True)
        self._line = ""
