"""Integrated gradients of columns, averaged over background rows."""

from __future__ import annotations

import warnings

import numpy as np

from mlp_xp.estimators.explanations.game import Game

_FIRST_STEPS, _MOST_STEPS = 8, 2048


def integrated_values(game: Game, tolerance: float) -> np.ndarray:
    r"""Return the integrated gradients of each column, (rows, columns, outputs).

    With the sum :math:`s = \sum_c t_c` of the columns' terms in the first layer,

    .. math:: \phi_c = (t_c - t'_c) \cdot \int_0^1 \nabla f(s' + \alpha (s - s'))\,d\alpha ,

    averaged over background rows with the terms :math:`t'`. The integral is a trapezoidal sum,
    whose steps are halved until no value changes by more than ``tolerance`` times the standard
    deviation of the predictions, and a row's values add up to its difference within it.
    """
    every = np.concatenate([game.of_rows, game.of_background])
    largest = tolerance * np.std(every, axis=0) + 1e-9 * np.max(np.abs(every), axis=0)
    change = game.of_rows - np.mean(game.of_background, axis=0)
    active = np.arange(game.n_rows)
    steps = _FIRST_STEPS
    weights = np.asarray([0.5, *np.ones(steps - 1), 0.5]) / steps
    values = game.slopes(active, np.linspace(0.0, 1.0, steps + 1), weights)
    while len(active) and steps < _MOST_STEPS:
        middles = (np.arange(steps) + 0.5) / steps
        between = game.slopes(active, middles, np.full(steps, 1.0 / steps))
        moved = (between - values[active]) / 2.0
        values[active] += moved
        steps *= 2
        # Errors of columns can cancel in the sum, so the values must have settled, too.
        error = np.abs(np.sum(values[active], axis=1) - change[active])
        active = active[np.any(np.maximum(error, np.max(np.abs(moved), axis=1)) > largest, axis=1)]
    if len(active):
        warnings.warn(
            f"After {steps} steps, the integrated gradients of {len(active)} rows are not accurate "
            f"to tolerance={tolerance:g} times the outputs' standard deviation: raise `tolerance`.",
            stacklevel=4,
        )
    return values
