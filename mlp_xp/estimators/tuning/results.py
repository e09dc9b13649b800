"""The table of what a search has tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlp_xp.estimators.tuning.search import Trial


def results_of(trials: Sequence[Trial], weights: np.ndarray) -> dict[str, list[Any]]:
    """Return the columns of `search_results_`, with a row per configuration."""
    return {
        "number": [trial.configuration.number for trial in trials],
        "name": [trial.configuration.name for trial in trials],
        "loss": [_mean([*trial.losses.values()]) for trial in trials],
        "folds": [len(trial.losses) for trial in trials],
        "seconds": [round(sum(trial.seconds.values()), 3) for trial in trials],
        "status": [trial.status for trial in trials],
        "weight": [round(float(weight), 6) for weight in weights],
        "params": [trial.configuration.params for trial in trials],
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
