"""The results of a search: the networks that it selects, and the table of what it has tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.estimators.tuning.search import Search, Trial
from mlp_xp.estimators.tuning.selection import MOST_ROWS, allocate, select

# Smaller networks predict in about the same time: ten of this size take some 40 ms for 1,000 rows.
_FEW_WEIGHTS = 100_000


class Selected(NamedTuple):
    """The networks that a search selects, their weights, and the loss of their average.

    ``by_trial`` are the weights of the trials. ``rows`` are the rows that were held out, and
    ``outputs`` the average's out-of-fold outputs for them.
    """

    networks: list[Any]
    weights: np.ndarray
    by_trial: np.ndarray
    loss: float
    rows: np.ndarray
    outputs: np.ndarray


def select_networks(search: Search, most: float, *, only_first: bool) -> Selected:
    """Select the configurations whose average has the lowest out-of-fold loss, and their networks.

    The networks cost at most ``most``; see `_affordable`. If ``only_first``, the networks of all
    but the first fold are not used.
    """
    trials, costs = _affordable(search.finished, search.trials[0], most)
    folds = sorted(trials[0].outputs)
    rows = np.concatenate([search.samples.folds[i].held_out for i in folds])
    average = search.average(next(iter(trials[0].networks.values())), rows)
    outputs = [np.concatenate([trial.outputs[i] for i in folds]) for trial in trials]
    some = slice(None, None, -(-len(rows) // MOST_ROWS))
    weights = select([array[some] for array in outputs], lambda mean: average.loss(mean, some))
    own = [[t.networks[i] for i in (folds[:1] if only_first else folds)] for t in trials]
    numbers = allocate(weights, [*map(len, own)], costs, most)
    kept = weights * (np.asarray(numbers) > 0)
    kept = kept / kept.sum()
    networks, shares, start = [], [], 0
    for of_trial, n, weight in zip(own, numbers, kept, strict=True):
        # Begin where the last configuration ended, so that the networks together learn all rows.
        networks += [of_trial[(start + i) % len(of_trial)] for i in range(n)]
        shares += [weight / max(n, 1)] * n
        start += n
    mixed: Any = sum(weight * array for weight, array in zip(kept, outputs, strict=True))
    by_trial = np.zeros(len(search.trials))
    for trial, weight in zip(trials, kept, strict=True):
        by_trial[search.trials.index(trial)] = weight
    loss = average.loss(mixed)
    return Selected(networks, np.asarray(shares), by_trial, loss, rows, average.decode(mixed))


def _affordable(
    trials: Sequence[Trial], first: Trial, most: float
) -> tuple[list[Trial], list[float]]:
    """Return the trials with networks of which at least one may predict, and their costs.

    A network costs 1, or more if it is larger than a network of the first trial and has more than
    `_FEW_WEIGHTS`. A TabM costs as much as its members, as measured.
    """
    networks = [fitted_state(next(iter(trial.networks.values()))).network for trial in trials]
    sizes = [
        sum(block.n_parameters for blocks in network.blocks for block in blocks)
        for network in networks
    ]
    unit = max(sizes[trials.index(first)] if first in trials else 0, _FEW_WEIGHTS)
    costs = [n.n_members * max(1.0, size / unit) for n, size in zip(networks, sizes, strict=True)]
    found = [i for i, cost in enumerate(costs) if cost <= most] or [int(np.argmin(costs))]
    return [trials[i] for i in found], [costs[i] for i in found]


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
