"""Shapley values of a game: exact, or estimated from pairs of permutations."""

from __future__ import annotations

import warnings
from math import comb
from typing import Any

import numpy as np

from mlp_xp.estimators.explanations.game import Game

MOST_EXACT = 15  # The most columns for exact values by default.
# Estimates of standard errors have at least this many degrees of freedom.
_LEAST_PAIRS = 32
_MOST_ROUNDS = 1000


def is_exact(n_columns: int, exact: bool | None) -> bool:
    """Whether to compute exact values; raise ValueError if they would take too long."""
    if exact and n_columns > MOST_EXACT:
        raise ValueError(
            f"`exact=True` is for at most {MOST_EXACT} columns, got {n_columns}: their "
            f"{1 << n_columns:,} coalitions would each need a prediction per row and background "
            "row. Leave out `exact` to draw permutations, with standard errors."
        )
    # One pair of permutations has all orders of two columns.
    return n_columns < 3 or (n_columns <= MOST_EXACT if exact is None else exact)


def exact_values(game: Game) -> np.ndarray:
    r"""Return exact Shapley values, (rows, columns, outputs), from all 2^n sets of columns.

    .. math:: \phi_j = \sum_{S \not\ni j} \frac{|S|!\,(n - |S| - 1)!}{n!}\,(v(S + j) - v(S))

    Here, :math:`v(S)` is the mean output over the background rows, with the columns in S from the
    explained row.
    """
    n = len(game.columns)
    n_sets, base = 1 << n, np.mean(game.of_background, axis=0)
    weights = np.asarray([1.0 / (n * comb(n - 1, size)) for size in range(n)] + [0.0])
    values = np.zeros((game.n_rows, n, game.of_rows.shape[-1]))
    n_masks = min(n_sets, game.rows_at_once)
    with game.computing(n_sets):
        for rows in game.blocks(np.arange(game.n_rows), n_masks):
            for start in range(0, n_sets, n_masks):
                sets = np.arange(start, start + n_masks)
                is_in = (sets[:, None] >> np.arange(n) & 1).astype(bool)
                sizes = is_in.sum(axis=1)[:, None]
                factors = np.where(is_in, weights[sizes - 1], -weights[sizes])
                found = (game.mixed(rows, is_in[None], part) for part in game.parts(n_masks))
                v: Any = sum(np.sum(outputs, axis=1) for outputs in found) / game.n_background
                # Use the model's own predictions at both ends, so that values add up exactly.
                v[:, sets == 0] = base
                v[:, sets == n_sets - 1] = game.of_rows[rows, None]
                values[rows] += np.einsum("mc,rmo->rco", factors, v)
    return values


def sampled_values(
    game: Game, tolerance: float, generator: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Return estimated Shapley values and their standard errors, (rows, columns, outputs).

    Each round draws two permutations for each background row, and uses each of them in both
    directions. Their difference estimates the variance. Rows are finished once all standard errors
    are at most ``tolerance`` times the standard deviation of the output.
    """
    n, n_outputs = len(game.columns), game.of_rows.shape[-1]
    every = np.concatenate([game.of_rows, game.of_background])
    # Rounding errors of a constant output are not an error of sampling.
    largest = tolerance * np.std(every, axis=0) + 1e-9 * np.max(np.abs(every), axis=0)
    totals, squares = np.zeros((2, game.n_rows, n, n_outputs))
    n_rounds = np.zeros(game.n_rows, int)
    active = np.arange(game.n_rows)
    least = -(-_LEAST_PAIRS // game.n_background)
    n_masks = 4 * (n - 1)
    with game.computing(least * n_masks):
        for number in range(1, _MOST_ROUNDS + 1):
            for part in game.parts(n_masks):
                walks = _Walks(n, part, generator)
                for rows in game.blocks(active, n_masks):
                    first, second = walks.changes(game, rows)
                    totals[rows] += np.sum(first + second, axis=1) / 2
                    squares[rows] += np.sum((first - second) ** 2, axis=1) / 4
            n_rounds[active] = number
            if number >= least:
                error = np.sqrt(squares[active]) / (number * game.n_background)
                active = active[np.any(error > largest, axis=(1, 2))]
            if not len(active):
                break
    if len(active):
        warnings.warn(
            f"The standard errors of {len(active)} rows are still above tolerance={tolerance:g} "
            f"times the standard deviation after {_MOST_ROUNDS} rounds: raise `tolerance`, or pass "
            "more background rows.",
            stacklevel=3,
        )
    n_walks = (n_rounds * game.n_background)[:, None, None]
    return totals / n_walks, np.sqrt(squares) / n_walks


class _Walks:
    """For each background row, two random orders of the columns, each in both directions.

    ``masks : (background rows, 4 * (columns - 1), columns)`` are the columns that are replaced
    after each step of a walk except the last.
    """

    def __init__(self, n: int, part: slice, generator: np.random.RandomState) -> None:
        self._part = part
        drawn = np.argsort(generator.random_sample((part.stop - part.start, 2, 1, n)))
        # The position of each column in each walk, (background rows, walks, columns).
        self._places = np.concatenate([drawn, n - 1 - drawn], axis=2).reshape((-1, 4, n))
        steps = self._places[:, :, None, :] < np.arange(1, n)[:, None]
        self.masks = steps.reshape((len(steps), -1, n))

    def changes(self, game: Game, rows: np.ndarray) -> np.ndarray:
        """Return the mean change of the output in both directions of each order.

        The shape is (2, rows, background rows, columns, outputs).
        """
        outputs = game.mixed(rows, self.masks, self._part)
        n, n_rows, n_outputs = self._places.shape[-1], *outputs.shape[::3]
        shape = n_rows, *self._places.shape[:2], n - 1, n_outputs
        ends = (*shape[:3], 1, n_outputs)
        first = np.broadcast_to(game.of_background[None, self._part, None, None], ends)
        last = np.broadcast_to(game.of_rows[rows, None, None, None], ends)
        changes = np.diff(np.concatenate([first, outputs.reshape(shape), last], axis=3), axis=3)
        by_column = np.take_along_axis(changes, self._places[None, ..., None], axis=3)
        pairs = by_column.reshape((*by_column.shape[:2], 2, 2, n, n_outputs)).mean(axis=3)
        return np.moveaxis(pairs, 2, 0)
