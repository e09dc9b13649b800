"""Logs of a fit: CSV and TensorBoard."""

from __future__ import annotations

import csv
import math
import os
import time
from pathlib import Path
from typing import Any

from mlp_xp._utils.optional import optional
from mlp_xp.callbacks._base import Callback, Live
from mlp_xp.training.loop.records import Record


class CSVLog(Callback):
    """A CSV log with one row per epoch, containing the fields of the epoch's record.

    Fields that are None are empty. Floats are written with full precision. The file is complete
    after each epoch.

    Parameters
    ----------
    path : str or path-like
        The file, which is replaced when a fit begins. Its folder is created if missing.

    Examples
    --------
    >>> import tempfile
    >>> from mlp_xp.callbacks import CSVLog
    >>> from mlp_xp.training.loop.records import Record
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
        """Create the file with its header."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write("w", Record._fields)

    def on_fit_resume(self, model: Any) -> None:
        """Create the file again with the epochs so far."""
        self.on_fit_begin(model)
        for record in model.history_:
            self._write("a", record)

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Write a row."""
        self._write("a", record)

    def _write(self, mode: str, row: tuple[Any, ...]) -> None:
        # Open the file again for each row, so this object can be copied and pickled.
        with open(self.path, mode, newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(row)


class TensorBoard(Live):
    """A TensorBoard log of each epoch's scalars; requires the ``tensorboard`` extra.

    The scalars are the numbers in the epoch's record, and ``samples_per_second``.

    Parameters
    ----------
    folder : str or path-like
        The folder of the log, created if missing. Use a separate folder for each fit; if several
        fits write to the same folder, TensorBoard shows only the last.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.callbacks import TensorBoard
    >>> model = MLPClassifier((512,), callbacks=[TensorBoard("runs/512-wide")])
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        # Not a Path: tensorboardX also supports "s3://" and "gs://".
        self.folder = os.fspath(folder)

    def on_fit_begin(self, model: Any) -> None:
        """Create a new event file."""
        self._open(0)

    def on_fit_resume(self, model: Any) -> None:
        """Create a new event file; events of earlier files stay visible."""
        self._open(len(model.history_) + 1)

    def _open(self, first_epoch: int) -> None:
        # tensorboardX names files by the second, so two short fits would write to the same file.
        # TensorBoard reads files in the order of their names, so the suffix begins with the time.
        suffix = f".{time.time_ns()}.{os.getpid()}"
        self._live = optional("tensorboardX", "tensorboard").SummaryWriter(
            self.folder, purge_step=first_epoch, flush_secs=5, filename_suffix=suffix
        )

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Write the scalars of the epoch."""
        for name, value in scalars(record).items():
            self._live.add_scalar(name, value, record.epoch)

    def on_fit_end(self, model: Any) -> None:
        """Close the file."""
        writer, self._live = self._live, None
        if writer is not None:
            writer.close()


def scalars(record: Record) -> dict[str, float]:
    """Return the numbers in a record by name, and ``samples_per_second``."""
    names = "loss", "accuracy", "learning_rate", "validation_loss", "validation_score"
    values = {name: getattr(record, name) for name in names}
    if math.isnan(record.learning_rate):  # "lbfgs" has no learning rate.
        del values["learning_rate"]
    known = {name: value for name, value in values.items() if value is not None}
    return known | {"samples_per_second": record.n_samples / record.seconds}
