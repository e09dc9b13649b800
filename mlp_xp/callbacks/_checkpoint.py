"""Save checkpoints from which a fit can resume, and the best model so far."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp._utils.signals import terminations
from mlp_xp._utils.storage.durable import locked, make_folder, new_folder, remove_folder, sweep
from mlp_xp.callbacks._base import Live, expect
from mlp_xp.estimators.fitted.state import host_copy
from mlp_xp.estimators.fitting.reporting import Pause
from mlp_xp.saving import SavingError, check_can_save, save_model, write_model
from mlp_xp.training.checkpoints.checkpoints import checkpoint_name, checkpoints, write_snapshot
from mlp_xp.training.checkpoints.snapshot import Snapshot, SnapshotError
from mlp_xp.training.loop.records import Record

_BEST = "best"
_TERMINATED = 128 + 15  # The shell's exit status for SIGTERM.
_SECONDS = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_INTERVAL = re.compile(rf"(\d+\.?\d*|\.\d+) ?(epoch|step|{'|'.join(_SECONDS)})s?")
_FORMS = 'a number of epochs of at least 1, or text such as "100 steps", "30 s" or "10 min"'


class _Interval(NamedTuple):
    """The interval between two checkpoints; ``unit`` is "epoch", "step" or "s"."""

    amount: float
    unit: str


def _parse(every: Any) -> _Interval:
    """Parse an interval."""
    is_count = isinstance(every, Integral) and not isinstance(every, bool)
    text = f"{every} epochs" if is_count else every
    if isinstance(text, str) and (match := _INTERVAL.fullmatch(text)):
        amount, unit = float(match[1]), match[2]
        if unit in _SECONDS and amount > 0:
            return _Interval(amount * _SECONDS[unit], "s")
        if amount >= 1 and amount.is_integer():
            return _Interval(amount, unit)
    raise ValueError(f"`every` must be {_FORMS}, got {every!r}")


@dataclass
class _Work:
    """A fit's open resources, its best model since the last checkpoint, and a pending write."""

    resources: contextlib.ExitStack
    is_terminated: Callable[[], bool]
    thread: ThreadPoolExecutor
    pending: Any = None
    write: tuple[Future[dict[Path, Exception]], Any] | None = None


class Checkpoint(Live):
    """Checkpoints of a fit, from which ``fit(..., resume=folder)`` resumes after any interruption.

    Each checkpoint is a folder ``epoch-0003``, or ``epoch-0003-step-000120`` within an epoch, with
    everything needed to resume the fit as if it had not been interrupted: the files of a saved
    model, and ``training.safetensors`` and ``training.json`` with the optimizer state, the best
    weights, the input scaling and the position of the fit. Each checkpoint is written atomically;
    older checkpoints are removed afterwards. `mlp_xp.saving.load_model` can load checkpoints and
    the best model, in the folder ``best``. If writing fails, the fit continues with a warning.
    Ctrl-C writes a last checkpoint and ends the fit; SIGTERM writes one and ends the process with
    status 143. If the model cannot be saved, or the folder cannot be created or is used by another
    fit, an error is raised before the first step. Requires the ``cli`` extra.

    Parameters
    ----------
    folder : str or path-like
        A folder for this fit only. If it contains checkpoints from a different fit, they are
        removed after this fit's first checkpoint.
    every : int or str, default=1
        Number of epochs between checkpoints; or ``"100 steps"``, ``"30 s"``, ``"10 min"`` or ``"1
        h"``, which also allow checkpoints within an epoch, at the next pause of the training (about
        every 0.1 s). If a time is given, a thread writes checkpoints while the fit continues.
    keep_last : int of at least 1 or None, default=3
        Number of checkpoints to keep; None keeps all.
    keep_best : int of at least 0, default=1
        Number of best epochs whose checkpoints are also kept, by validation score or, without
        validation data, by loss. Unless this is 0, the best model of all epochs is in ``best``.

    Examples
    --------
    >>> import tempfile
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import Checkpoint
    >>> from mlp_xp.saving import load_model
    >>> X, y = [[0.0], [1.0]], [0, 1]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     watch = [Checkpoint(folder, every=2)]
    ...     model = MLPClassifier(max_iter=4, learning_rate="cosine", callbacks=watch)
    ...     model = model.fit(X, y)
    ...     resumed = model.fit(X, y, resume=folder)  # Finished: nothing to train.
    ...     load_model(f"{folder}/epoch-0002").n_iter_, resumed.n_iter_
    (2, 4)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int | str = 1,
        keep_last: int | None = 3,
        keep_best: int = 1,
    ) -> None:
        self._interval = _parse(every)
        is_count = keep_last is None or (isinstance(keep_last, Integral) and keep_last >= 1)
        expect(is_count, "keep_last", "an int of at least 1 or None", keep_last)
        is_count = isinstance(keep_best, Integral) and keep_best >= 0
        expect(is_count, "keep_best", "an int of at least 0", keep_best)
        self.folder = Path(folder)
        self.every = every
        self.keep_last = keep_last
        self.keep_best = keep_best

    def on_fit_begin(self, model: Any) -> None:
        """Check that the model can be saved, and lock the folder."""
        self._open(model)
        self._best = -math.inf
        self._stale = set(checkpoints(self.folder).values())

    def on_fit_resume(self, model: Any) -> None:
        """Lock the folder, and keep its checkpoints, which are from the resumed fit."""
        self._open(model)
        self._best = max(map(_score, model.history_), default=-math.inf)
        self._stale = set()

    def _open(self, model: Any) -> None:
        check_can_save(model)
        make_folder(self.folder)
        self._last_step, self._last_time = -1, time.perf_counter()
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.folder))
            sweep(self.folder)
            is_terminated = stack.enter_context(terminations())
            thread = stack.enter_context(ThreadPoolExecutor(1, "mlp_xp checkpoint"))
            self._live = _Work(stack.pop_all(), is_terminated, thread)

    def on_pause(self, model: Any, pause: Pause) -> None:
        """Write a checkpoint if it is due."""
        work = self._live
        if work.write is not None and work.write[0].done():
            self._end_write()
        is_terminated = work.is_terminated()
        is_due = is_terminated or pause.is_interrupted or self._is_due(pause)
        is_best = self.keep_best and not pause.step and _score(model.history_[-1]) > self._best
        if is_due:
            self._end_write()
            snapshot = pause.take()
        if is_due or is_best:
            copied = host_copy(model)
        if is_best:
            self._best, work.pending = _score(model.history_[-1]), copied
        if is_due:
            best, work.pending = work.pending, None
            work.write = work.thread.submit(self._write, copied, pause, snapshot, best), best
            self._last_step, self._last_time = pause.n_steps, time.perf_counter()
            # Wait for the write, so that a crash loses at most one interval.
            if is_terminated or self._interval.unit != "s":
                self._end_write()
        if is_terminated:
            raise SystemExit(_TERMINATED)

    def on_fit_end(self, model: Any) -> None:
        """Write any pending checkpoint, and unlock the folder."""
        if self._live is None:
            return
        with self._live.resources:
            try:
                self._end_write()
                _warn_of(self._write_best(self._live.pending))
            finally:
                self._live = None

    def _is_due(self, pause: Pause) -> bool:
        amount, unit = self._interval
        if unit == "epoch":
            return not pause.step and pause.epoch % amount == 0
        if unit == "s":
            return time.perf_counter() - self._last_time >= amount
        if self._last_step < 0:
            self._last_step = pause.n_steps - (pause.step or pause.n_steps)
        return pause.n_steps - self._last_step >= amount

    def _write(
        self, model: Any, pause: Pause, snapshot: Snapshot, best: Any
    ) -> dict[Path, Exception]:
        """Write a checkpoint, and the best model if it has changed; return the errors by path."""
        path = self.folder / checkpoint_name(pause.epoch, pause.step)
        try:
            with new_folder(path) as new:
                write_snapshot(new, snapshot)
                write_model(model, new)
            self._prune(model, (pause.epoch, pause.step))
        except (OSError, SavingError, SnapshotError) as error:
            return {path: error} | self._write_best(best)
        return self._write_best(best)

    def _write_best(self, best: Any) -> dict[Path, Exception]:
        path = self.folder / _BEST
        try:
            if best is not None:
                save_model(best, path)
        except (OSError, SavingError) as error:
            return {path: error}
        return {}

    def _end_write(self) -> None:
        """Wait until the current checkpoint has been written, and warn if this failed."""
        work = self._live
        if work.write is None:
            return
        (write, best), work.write = work.write, None
        failed = write.result()
        if self.folder / _BEST in failed and work.pending is None:
            work.pending = best
        _warn_of(failed)

    def _prune(self, model: Any, newest: tuple[int, int]) -> None:
        """Remove old checkpoints, checkpoints of other fits, and damaged newer checkpoints."""
        found = checkpoints(self.folder)
        mine = [key for key, path in found.items() if key <= newest and path not in self._stale]
        if newest not in mine:  # The new checkpoint has replaced one from another fit.
            mine.append(newest)
        scores = {record.epoch: _score(record) for record in model.history_}
        ends = [key for key in mine if not key[1] and key[0] in scores]
        best = sorted(ends, key=lambda key: scores[key[0]])[max(0, len(ends) - self.keep_best) :]
        kept = {*mine[-(self.keep_last or len(mine)) :], *(best if self.keep_best else ())}
        for key, path in found.items():
            if key not in kept:
                remove_folder(path)
        self._stale = set()


def _warn_of(failed: dict[Path, Exception]) -> None:
    """Warn about failed writes; they must not end the fit."""
    for path, error in failed.items():
        reason = getattr(error, "strerror", None) or str(error)
        more = ""
        if isinstance(error, OSError):
            more = ", and will write the next checkpoint when it is due: free disk space, or make "
            more += "the folder writable"
        warnings.warn(
            f"{path} cannot be written: {reason}. The fit continues{more}.",
            RuntimeWarning,
            stacklevel=2,
        )


def _score(record: Record) -> float:
    """Return the score of an epoch; higher is better."""
    if record.validation_score is not None:
        return record.validation_score
    return -(record.loss if record.validation_loss is None else record.validation_loss)
