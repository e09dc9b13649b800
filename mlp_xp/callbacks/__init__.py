"""What can watch a fit, and end it: progress, checkpoints, budgets and logs."""

from __future__ import annotations

import csv
import math
import os
import shutil
import time
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from mlp_xp._utils.optional import optional
from mlp_xp.saving import check_can_save, save_model
from mlp_xp.training.time_budget import Budget, Pace
from mlp_xp.training.trainer import Record

__all__ = [
    "CSVLog",
    "Callback",
    "Checkpoint",
    "ProgressBar",
    "TargetScore",
    "TensorBoard",
    "TimeBudget",
]


class Callback:
    """What a fit calls as it goes: override the methods that you need.

    A `fit` calls the callbacks in the order of the estimator's parameter ``callbacks``, on the
    objects themselves: what one of them has noted can be read from it afterwards. Where the
    estimator is cloned, as in a grid search, so are they. One object watches one fit at a time.
    `partial_fit` calls none.

    Attributes
    ----------
    wants_accuracy : bool, default=False
        Whether records are to tell the training accuracy, which costs a little at each step.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import Callback
    >>> class StopAt(Callback):
    ...     def __init__(self, loss):
    ...         self.loss = loss
    ...
    ...     def on_epoch_end(self, model, record):
    ...         return record.loss < self.loss
    >>> model = MLPClassifier(learning_rate_init=0.1, random_state=0, callbacks=[StopAt(0.1)])
    >>> bool(model.fit([[0.0], [1.0]], [0, 1]).loss_ < 0.1), model.n_iter_ < model.max_iter
    (True, True)
    """

    wants_accuracy: bool = False

    def on_fit_begin(self, model: Any) -> None:
        """Prepare for a fit of `model`; its ``max_iter`` is the planned number of epochs.

        Its ``max_time`` can still be set here. It counts from the call of `fit`.
        """

    def on_step_end(self, model: Any, done: int, n_steps: int) -> bool | None:
        """Look at step `done`, from 1, of the `n_steps` of an epoch; True ends the fit here.

        The device may still be at work on it, and the model is up to date only behind an epoch.
        """

    def on_epoch_end(self, model: Any, record: Record) -> bool | None:
        """Look at an epoch, after its validation; True ends the fit here.

        The model predicts with its present weights, and `record` is the last of its ``history_``.
        """

    def on_fit_end(self, model: Any) -> None:
        """Finish, also after a fit that failed or was interrupted."""


class _Live(Callback):
    """A callback that holds something open during a fit; a copy made meanwhile holds nothing."""

    _live: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_live"}


class ProgressBar(_Live):
    """Show a bar with epoch, loss, validation score and time left.

    The time left follows the pace of the steps; what compiles before or in the first one does not
    count. Where stdout is no terminal, a line is printed instead: at the end, and every so many
    epochs that there are about twenty. With ``max_time`` the bar follows the time where that ends
    the fit. Needs the ``cli`` extra.

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

    def on_step_end(self, model: Any, done: int, n_steps: int) -> None:
        """Move the bar, ten times a second at the most."""
        now = time.perf_counter()
        share = self._share(model, (self._epoch * n_steps + done) / n_steps)
        if self._live is not None and (now >= self._next or done == n_steps):
            self._next = now + 0.1
            facts = {} if self._epoch else {"facts": ""}
            self._live.update(
                0, completed=share, total=1.0, epoch=self._epoch + 1, left=self._left(), **facts
            )

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Show what the epoch gave."""
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
        """Leave the bar as it is."""
        bar, self._live = self._live, None
        if bar is not None:
            bar.stop()
        self._print()

    def _share(self, model: Any, epochs: float) -> float:
        """Note how much of the fit is done, and return it."""
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


def time_left(seconds: float) -> str:
    """Return seconds as minutes and seconds.

    Examples
    --------
    >>> from mlp_xp.callbacks import time_left
    >>> time_left(61.2)
    '1:01 left'
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02} left"


class Checkpoint(Callback):
    """Save the model as the fit goes on; `mlp_xp.saving.load_model` reads it back.

    A checkpoint is there as a whole or not at all. A model that cannot be saved, or a folder that
    cannot be made, is an error before the first step. Needs the ``cli`` extra.

    Parameters
    ----------
    folder : str or path-like
        Gets ``epoch-0001``, ``epoch-0002`` and so on, or ``best``; those of an earlier fit are
        replaced.
    every : int of at least 1, default=1
        Epochs from one checkpoint to the next.
    best_only : bool, default=False
        Keep only ``best``: the one with the highest validation score; without validation data,
        with the lowest loss.

    Examples
    --------
    >>> import tempfile
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import Checkpoint
    >>> from mlp_xp.saving import load_model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     watch = [Checkpoint(folder, every=2)]
    ...     model = MLPClassifier(max_iter=4, learning_rate="cosine", callbacks=watch)
    ...     model = model.fit([[0.0], [1.0]], [0, 1])
    ...     load_model(f"{folder}/epoch-0002").n_iter_
    2
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, every: int = 1, best_only: bool = False
    ) -> None:
        _expect(isinstance(every, Integral) and every >= 1, "every", "an int of at least 1", every)
        _expect(isinstance(best_only, bool), "best_only", "True or False", best_only)
        self.folder = Path(folder)
        self.every = every
        self.best_only = best_only

    def on_fit_begin(self, model: Any) -> None:
        """Make sure that the model can be saved, and forget what was the best."""
        check_can_save(model)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._best = -math.inf

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Save the model where it is time to."""
        if record.epoch % self.every != 0:
            return
        if not self.best_only:
            _save(model, self.folder / f"epoch-{record.epoch:04}")
            return
        score = record.validation_score
        if score is None:
            score = -(record.loss if record.validation_loss is None else record.validation_loss)
        if score > self._best:
            _save(model, self.folder / "best")
            self._best = score


def _save(model: Any, folder: Path) -> None:
    """Save beside, then rename. What was there goes only when the new one is complete."""
    new, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    try:
        save_model(model, new)
        shutil.rmtree(old, ignore_errors=True)
        # No system that Python runs on lets a rename replace a folder with something in it.
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


class TimeBudget(Callback):
    """End the fit at the last step that fits into a time.

    That is when the next step, and what follows each epoch, would end too late, judged by how long
    they have taken so far. The time counts from the beginning of the fit. The schedule of the
    learning rate knows nothing of it: for that, and for a GPU, whose steps are only queued when
    they "end", there is the estimators' parameter ``max_time``.

    Parameters
    ----------
    seconds : float above 0

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import TimeBudget
    >>> model = MLPClassifier(max_iter=10**9, tol=0, callbacks=[TimeBudget(0.1)])
    >>> model.fit([[0.0], [1.0]], [0, 1]).n_iter_ < 10**9
    True
    """

    def __init__(self, seconds: float) -> None:
        good = isinstance(seconds, Real) and seconds > 0
        _expect(good, "seconds", "a number above 0", seconds)
        self.seconds = seconds

    def on_fit_begin(self, model: Any) -> None:
        """Start the clock."""
        self._budget, self._has_steps = Budget(self.seconds), False

    def on_step_end(self, model: Any, done: int, n_steps: int) -> bool:
        """Tell whether there is no time for one more."""
        self._has_steps = True
        self._budget.count(1)
        return self._budget.next_steps(1) == 0

    def on_epoch_end(self, model: Any, record: Record) -> bool:
        """Tell whether there is no time for one more step."""
        # The iterations of "lbfgs" are epochs without steps.
        if self._has_steps:
            self._budget.between()
        else:
            self._budget.count(1)
        return self._budget.next_steps(1) == 0


class TargetScore(Callback):
    """End the fit at the first epoch whose validation score is high enough.

    Parameters
    ----------
    score : float
        Accuracy from 0 to 1 for a classifier.

    Examples
    --------
    >>> from mlp_xp.callbacks import TargetScore
    >>> from mlp_xp.training.trainer import Record
    >>> record = Record(1, 0.7, None, 0.001, 1000, 0.1, validation_loss=0.8, validation_score=0.75)
    >>> TargetScore(0.7).on_epoch_end(None, record)
    True
    """

    def __init__(self, score: float) -> None:
        good = isinstance(score, Real) and math.isfinite(score)
        _expect(good, "score", "a finite number", score)
        self.score = score

    def on_epoch_end(self, model: Any, record: Record) -> bool:
        """Tell whether the score has been reached."""
        if record.validation_score is None:
            raise ValueError(
                f"TargetScore({self.score}) needs a validation score, and epoch {record.epoch} has "
                "none: pass X_val and y_val to fit, or set early_stopping=True"
            )
        return bool(record.validation_score >= self.score)


class CSVLog(Callback):
    """Write a row an epoch to a CSV file: the fields of the record, empty where it has none.

    Floats are written so that they are read back exactly. After each epoch the file is complete.

    Parameters
    ----------
    path : str or path-like
        Replaced when a fit begins; its folder is created where missing.

    Examples
    --------
    >>> import tempfile
    >>> from mlp_xp.callbacks import CSVLog
    >>> from mlp_xp.training.trainer import Record
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = CSVLog(f"{folder}/log.csv")
    ...     log.on_fit_begin(None)
    ...     log.on_epoch_end(None, Record(1, 2.25, None, 0.001, 1000, 0.5))
    ...     print(log.path.read_text())
    epoch,loss,accuracy,learning_rate,n_samples,seconds,validation_loss,validation_score
    1,2.25,,0.001,1000,0.5,,
    <BLANKLINE>
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_fit_begin(self, model: Any) -> None:
        """Begin a new file with its header."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write("w", Record._fields)

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Write a row."""
        self._write("a", record)

    def _write(self, mode: str, row: tuple[Any, ...]) -> None:
        # Opened anew for each row: nothing to flush, to close, or to leave out of a copy.
        with open(self.path, mode, newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(row)


class TensorBoard(_Live):
    """Write the scalars of each epoch for TensorBoard; needs the ``tensorboard`` extra.

    They are the numbers of the record by their names there, and ``samples_per_second``.

    Parameters
    ----------
    folder : str or path-like
        Created where missing. Of several fits into one folder TensorBoard shows the last; a
        folder for each fit shows them side by side.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import TensorBoard
    >>> model = MLPClassifier((512,), callbacks=[TensorBoard("runs/512-wide")])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        # Not a Path: tensorboardX also takes "s3://" and "gs://".
        self.folder = os.fspath(folder)

    def on_fit_begin(self, model: Any) -> None:
        """Begin a new file of events."""
        # tensorboardX names its file by the second, and would overwrite that of a quick fit before;
        # TensorBoard reads the files in the order of their names.
        suffix = f".{time.time_ns()}.{os.getpid()}"
        self._live = optional("tensorboardX", "tensorboard").SummaryWriter(
            self.folder, purge_step=0, flush_secs=5, filename_suffix=suffix
        )

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Write the scalars of the epoch."""
        for name in ("loss", "accuracy", "learning_rate", "validation_loss", "validation_score"):
            value = getattr(record, name)
            # "lbfgs" has no learning rate.
            if value is not None and not (name == "learning_rate" and math.isnan(value)):
                self._live.add_scalar(name, value, record.epoch)
        self._live.add_scalar("samples_per_second", record.n_samples / record.seconds, record.epoch)

    def on_fit_end(self, model: Any) -> None:
        """Write what is left, and close the file."""
        writer, self._live = self._live, None
        if writer is not None:
            writer.close()


def _expect(condition: bool, name: str, expected: str, given: Any) -> None:
    if not condition:
        raise ValueError(f"{name} must be {expected}, got {given!r}")
