"""Greedy selection of configurations by the out-of-fold loss of their average."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.nn.losses import EachMember, mean_loss

MOST_STEPS = 40
# Configurations that can be selected: the best by their own loss. More rarely help, and each costs
# an evaluation of the loss per step.
MOST_CANDIDATES = 25
MOST_ROWS = 20_000  # With more rows held out, selection takes every n-th of them.


class Average:
    """The loss of averaged outputs on rows that were held out, for networks with the same targets.

    ``state`` is one of the fitted networks.
    """

    def __init__(
        self, state: FittedState, y: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        loss = state.activating_loss
        loss = loss.loss if isinstance(loss, EachMember) else loss
        targets = state.targets.plain
        self._has_std = loss.has_std
        self._loss = loss if targets.classes is None else targets.log_loss
        self._y = targets.encode(y, "float64")
        self._weights = weights

    def encode(self, outputs: np.ndarray) -> np.ndarray:
        """Return outputs in a form whose mean describes the outputs of an average.

        A mean and a standard deviation become a mean and a mean square, which a mixture averages.
        """
        if not self._has_std:
            return outputs
        mean, std = np.split(outputs, 2, axis=1)
        return np.concatenate([mean, std * std + mean * mean], axis=1)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return the outputs that a mean of encoded outputs describes."""
        if not self._has_std:
            return encoded
        mean, square = np.split(encoded, 2, axis=1)
        tiny = np.finfo(encoded.dtype).eps
        return np.concatenate([mean, np.sqrt(np.maximum(square - mean * mean, tiny))], axis=1)

    def loss(self, encoded: np.ndarray, rows: Any = slice(None)) -> float:
        """Return the mean loss of encoded outputs for some of the rows."""
        xp: Any = np
        outputs: Any = self.decode(encoded).astype(np.float64, copy=False)
        weights: Any = None if self._weights is None else self._weights[rows]
        if weights is not None and not np.any(weights):
            return 0.0
        raw = self._loss.raw_outputs(outputs, xp=xp)
        targets: Any = self._y[rows]
        average: Any = mean_loss(self._loss, raw, targets, weights, xp=xp)[0]
        return float(average)


def select(outputs: Sequence[np.ndarray], loss_of: Callable[[np.ndarray], float]) -> np.ndarray:
    """Return the weight of each configuration, (configurations,), given its encoded outputs.

    Selection is greedy and with replacement: each of at most 40 steps adds the configuration with
    which the average has the lowest loss. The weights are the counts of the best prefix.

    Caruana, Niculescu-Mizil, Crew, Ksikes, "Ensemble selection from libraries of models" (2004).
    """
    own = [loss_of(array) for array in outputs]
    candidates = heapq.nsmallest(MOST_CANDIDATES, range(len(own)), key=own.__getitem__)
    chosen = [candidates[0]]
    best, n_best = own[chosen[0]], 1
    total = outputs[chosen[0]].copy()
    for step in range(2, MOST_STEPS + 1):
        losses = [loss_of((total + outputs[i]) / step) for i in candidates]
        lowest = int(np.argmin(losses))
        chosen.append(candidates[lowest])
        total += outputs[chosen[-1]]
        if losses[lowest] < best:
            best, n_best = losses[lowest], step
    counts = np.bincount(chosen[:n_best], minlength=len(outputs))
    return counts / n_best


def allocate(
    weights: np.ndarray, sizes: Sequence[int], costs: Sequence[float], most: float
) -> list[int]:
    """Return the number of networks that predict for each configuration.

    ``sizes`` are the numbers of its networks, one per fold; ``costs`` are their costs. Networks are
    added one by one, to the configuration with the highest weight per network (D'Hondt's method),
    while their total cost is at most ``most``. The configuration with the highest weight has at
    least one network.
    """
    numbers = [0] * len(weights)
    left = most
    while True:
        fits = [
            i
            for i, weight in enumerate(weights)
            if weight > 0.0 and numbers[i] < sizes[i] and costs[i] <= left
        ]
        if not fits:
            break
        best = max(fits, key=lambda i: weights[i] / (numbers[i] + 1))
        numbers[best] += 1
        left -= costs[best]
    if not any(numbers):
        numbers[int(np.argmax(weights))] = 1
    return numbers
