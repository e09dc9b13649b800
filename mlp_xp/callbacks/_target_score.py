"""A target score."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from mlp_xp.callbacks._base import Callback, expect
from mlp_xp.training.loop.records import Record


class TargetScore(Callback):
    """End the fit after the first epoch whose validation score reaches a target.

    Parameters
    ----------
    score : float
        The validation score to reach; for a classifier, by default, an accuracy from 0 to 1.

    Examples
    --------
    >>> from mlp_xp.callbacks import TargetScore
    >>> from mlp_xp.training.loop.records import Record
    >>> record = Record(1, 0.7, None, 0.001, 1000, 0.1, validation_loss=0.8, validation_score=0.75)
    >>> TargetScore(0.7).on_epoch_end(None, record)
    True
    """

    def __init__(self, score: float) -> None:
        good = isinstance(score, Real) and math.isfinite(score)
        expect(good, "score", "a finite number", score)
        self.score = score

    def on_epoch_end(self, model: Any, record: Record) -> bool:
        """Whether the score has been reached."""
        if record.validation_score is None:
            raise ValueError(
                f"TargetScore({self.score}) needs a validation score, but epoch {record.epoch} has "
                "none: pass X_val and y_val to fit, or set early_stopping=True."
            )
        return bool(record.validation_score >= self.score)
