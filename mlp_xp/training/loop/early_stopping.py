"""Early stopping: detect when the loss no longer falls."""

from __future__ import annotations

import numpy as np


class Plateau:
    """Scikit-learn's stopping rule: stop after too many consecutive epochs without improvement.

    Training stops after more than ``patience`` consecutive epochs whose loss is not at least
    ``tol`` below ``best``, the lowest loss so far.
    """

    def __init__(self, tol: float, patience: float, best: float = np.inf, count: int = 0) -> None:
        self.tol = tol
        self.patience = patience
        self.best = best
        self.count = count

    @property
    def n_before(self) -> float:
        """The number of epochs that must still run before training can stop, at least 1."""
        return max(1, self.patience - self.count + 1)

    @property
    def is_over(self) -> bool:
        """Whether the loss has not improved for more than ``patience`` consecutive epochs."""
        return self.count > self.patience

    def reached(self, loss: float) -> bool:
        """Record an epoch's loss, and return whether to stop."""
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
