"""A time limit and a target score."""

from __future__ import annotations

import math
import time
from numbers import Real
from typing import Any

from mlp_xp.callbacks._base import Callback, expect
from mlp_xp.training.loop.records import Record
from mlp_xp.training.loop.time_budget import Budget


class TimeBudget(Callback):
    """A time limit for a fit.

    The fit ends when the next step, or the validation after the step, would probably exceed the
    limit, given the durations so far. The time is counted from the start of the fit. The
    learning-rate schedule does not depend on the limit, and on a GPU, durations are measured when
    steps are queued, not when they finish. The parameter ``max_time`` of the estimators has neither
    limitation.

    Parameters
    ----------
    seconds : float
        Above 0.

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
        expect(good, "seconds", "a number above 0", seconds)
        self.seconds = seconds

    def on_fit_begin(self, model: Any) -> None:
        """Start the clock."""
        self._budget, self._has_steps = Budget(self.seconds), False

    def on_fit_resume(self, model: Any) -> None:
        """Start the clock, and count the time of the earlier epochs."""
        used = sum(record.seconds for record in model.history_[-model.n_iter_ :])
        start = time.perf_counter() - (used if model.n_iter_ else 0.0)
        self._budget, self._has_steps = Budget(self.seconds, start), False

    def on_step_end(self, model: Any, done: int, n_steps: int) -> bool:
        """Whether no time is left for another step."""
        self._has_steps = True
        self._budget.count(1)
        return self._budget.next_steps(1) == 0

    def on_epoch_end(self, model: Any, record: Record) -> bool:
        """Whether no time is left for another step."""
        # The iterations of "lbfgs" are epochs without steps.
        if self._has_steps:
            self._budget.between()
        else:
            self._budget.count(1)
        return self._budget.next_steps(1) == 0


class TargetScore(Callback):
    """A target score: the fit ends after the first epoch that reaches this validation score.

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
