"""Models saved during a fit."""

from __future__ import annotations

import math
import os
import shutil
from numbers import Integral
from pathlib import Path
from typing import Any

from mlp_xp.callbacks._base import Callback, expect
from mlp_xp.saving import check_can_save, save_model
from mlp_xp.training.records import Record

__all__ = ["Checkpoint"]


class Checkpoint(Callback):
    """Saved copies of the model during a fit; `mlp_xp.saving.load_model` reads one back.

    A checkpoint is complete or absent. A model that cannot be saved, or a folder that cannot be
    created, is an error before the first step. Needs the ``cli`` extra.

    Parameters
    ----------
    folder : str or path-like
        Receives ``epoch-0001``, ``epoch-0002`` and so on, or ``best``. Those of an earlier fit are
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
        expect(isinstance(every, Integral) and every >= 1, "every", "an int of at least 1", every)
        expect(isinstance(best_only, bool), "best_only", "True or False", best_only)
        self.folder = Path(folder)
        self.every = every
        self.best_only = best_only

    def on_fit_begin(self, model: Any) -> None:
        """Check that the model can be saved, and reset the best score."""
        check_can_save(model)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._best = -math.inf

    def on_epoch_end(self, model: Any, record: Record) -> None:
        """Save the model where a checkpoint is due."""
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
    """Save next to the old folder, then rename: the old one goes when the new one is complete."""
    new, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    try:
        save_model(model, new)
        shutil.rmtree(old, ignore_errors=True)
        # No operating system lets a rename replace a folder that is not empty.
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
