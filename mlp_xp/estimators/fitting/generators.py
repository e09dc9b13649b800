"""The random generator of a fit, left where scikit-learn's MLP leaves it.

The splits and models that follow a fit then draw the same numbers as with scikit-learn. The fit
itself draws only the initial weights from it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from mlp_xp._utils.random import RandomState
from mlp_xp.estimators.settings.config import LBFGS
from mlp_xp.estimators.targets import Targets
from mlp_xp.training.loop.records import Record

__all__ = ["draw_epochs", "draw_split", "peek_seed"]


def peek_seed(generator: RandomState) -> int:
    """Return a seed derived from the generator's state, without changing it."""
    return int(copy.deepcopy(generator).randint(2**31 - 1))


def draw_split(random_state: Any, y: np.ndarray, fraction: float, targets: Targets) -> None:
    """Draw the numbers that scikit-learn's train-test split draws."""
    if not isinstance(random_state, Integral):
        from sklearn.model_selection import train_test_split  # Slow to import, and rarely needed.

        generator, rows = check_random_state(random_state), np.arange(len(y))
        strata = targets.strata(y, fraction) if targets.kind == "binary" else None
        train_test_split(rows, test_size=fraction, random_state=generator, stratify=strata)


def draw_epochs(model: Any, epochs: Sequence[Record]) -> None:
    """Draw the numbers that scikit-learn's shuffles of these epochs draw."""
    is_drawn = model.shuffle and model.solver != LBFGS
    if epochs and is_drawn and not isinstance(model.random_state, Integral):
        generator = check_random_state(model.random_state)
        rows = np.zeros(epochs[0].n_samples, np.int8)
        for _ in epochs:  # The numbers depend on the length alone.
            generator.shuffle(rows)
