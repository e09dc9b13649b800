"""Early stopping: whether the training loss still falls."""

from __future__ import annotations

import numpy as np


class Plateau:
    """Scikit-learn's rule: stop when a loss has not fallen by ``tol`` for too many epochs.

    ``patience`` epochs in a row may pass without such a fall below ``best``, the lowest loss so
    far.
    """

    def __init__(self, tol: float, patience: float, best: float = np.inf, count: int = 0) -> None:
        self.tol = tol
        self.patience = patience
        self.best = best
        self.count = count

    @property
    def n_before(self) -> float:
        """The minimum number of epochs, at least 1, before training can stop."""
        return max(1, self.patience - self.count + 1)

    @property
    def is_over(self) -> bool:
        """Whether the loss has not fallen for too many epochs."""
        return self.count > self.patience

    def reached(self, loss: float) -> bool:
        """Record the loss of an epoch, and return whether to stop."""
        self.count = self.count + 1 if loss > self.best - self.tol else 0
        self.best = min(self.best, loss)
        return self.is_over

    def message(self, *, by_score: bool) -> str:
        """Return scikit-learn's message for a loss that has stopped falling."""
        what = "Validation score" if by_score else "Training loss"
        return (
            f"{what} did not improve more than tol={self.tol:f} for {self.patience} "
            "consecutive epochs."
        )
