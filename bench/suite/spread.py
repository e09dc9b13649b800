"""Medians and their noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """Median and quartiles of some measurements."""

    median: float
    low: float
    high: float

    @property
    def noise(self) -> float:
        """The interquartile range."""
        return self.high - self.low


def spread(values: Sequence[float]) -> Spread:
    low, high = np.quantile(values, [0.25, 0.75])
    return Spread(statistics.median(values), float(low), float(high))


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Return the spread of ratios turn by turn, so that a slow turn slows both."""
    # A contender that failed has fewer turns.
    return spread([a / b for a, b in zip(theirs, ours, strict=False)])
