"""An epoch's plan: each step's rows, their weights, and the augmentations' random draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlp_xp._utils.random import host_generator
from mlp_xp._utils.tree import map_leaves
from mlp_xp.augmentation import Augmentation, Draws, Epoch


class EpochPlan(NamedTuple):
    """The rows and weights of each step of an epoch.

    ``rows : (steps * batch_size,)`` are the samples' int32 positions, step by step, or None if a
    single step uses all samples in order. ``weights`` has the same length, or is None if all
    weights are 1. ``counts`` and ``totals`` are each step's number of samples and sum of weights.
    ``draws`` contains each augmentation's random draws, a NamedTuple of ``(steps * batch_size,
    ...)`` arrays, or is None; see `with_draws`.

    If several processes share each batch, a plan contains the rows of one process, but counts and
    totals describe whole batches. ``positions``, one per row, are int32 positions in the whole
    batch, or None without dropout, and ``parts : (steps,)`` are fractions of the totals.
    """

    rows: np.ndarray | None
    weights: np.ndarray | None
    batch_size: int
    counts: list[int]
    totals: list[float]
    draws: tuple[Draws, ...] | None = None
    positions: np.ndarray | None = None
    parts: np.ndarray | None = None


def plan_epoch(
    n_samples: int,
    batch_size: int,
    *,
    seed: int | None = None,
    epoch: int = 0,
    weights: np.ndarray | None = None,
    pad: bool = False,
    order: Callable[[np.random.Generator], np.ndarray] | None = None,
) -> EpochPlan:
    """Return the plan of one epoch: every sample once, in batches.

    Unless ``seed`` is None, samples are shuffled differently in each epoch; ``order(generator)``
    returns a random order, by default any of all orders. The last batch may be shorter. If ``pad``
    is true, the last batch is padded with samples of weight 0, so that all batches have the same
    shape; weighted averages do not change.
    """
    batch_size = min(batch_size, n_samples)
    n_steps = -(-n_samples // batch_size)
    counts = [batch_size] * (n_steps - 1) + [n_samples - (n_steps - 1) * batch_size]
    if n_steps == 1:
        # A single batch is not shuffled: its order affects only rounding, and shuffling copies all
        # data.
        total = float(n_samples) if weights is None else float(np.sum(weights))
        return EpochPlan(None, weights, batch_size, counts, [total])
    if seed is None:
        rows = np.arange(n_samples, dtype=np.int32)
    else:
        generator = host_generator(seed, "shuffle", epoch)
        drawn = generator.permutation(n_samples) if order is None else order(generator)
        rows = drawn.astype(np.int32, copy=False)
    if weights is not None:
        weights = weights[rows]
    missing = n_steps * batch_size - n_samples
    if pad and missing:
        weights = np.ones(n_samples) if weights is None else weights
        weights = np.concatenate([weights, np.zeros(missing, dtype=weights.dtype)])
        rows = np.concatenate([rows, np.zeros(missing, dtype=rows.dtype)])
    if weights is None:
        totals = [float(count) for count in counts]
    else:
        # Summing over an axis is 100 times faster than looping over batches, and bitwise identical.
        end = len(weights) // batch_size * batch_size
        totals = np.sum(weights[:end].reshape(-1, batch_size), axis=1).astype(float).tolist()
        totals += [float(np.sum(weights[end:]))] if end < len(weights) else []
    return EpochPlan(rows, weights, batch_size, counts, totals)


def with_draws(
    plan: EpochPlan, augmentation: Sequence[Augmentation], *, seed: int, epoch: int
) -> EpochPlan:
    """Add the augmentations' draws for the whole epoch to a plan.

    Each augmentation has its own random stream, so its draws do not depend on padding or on other
    augmentations.
    """
    n_samples = sum(plan.counts)
    here = np.arange(n_samples if plan.rows is None else len(plan.rows))
    steps, positions = np.divmod(here, plan.batch_size)
    rows = here if plan.rows is None else plan.rows
    sizes = np.asarray(plan.counts)[steps]
    draws = []
    for number, transform in enumerate(augmentation):

        def generator(stream: int, number: int = number) -> np.random.Generator:
            return host_generator(seed, "augmentation", stream, number)

        details = Epoch(generator, epoch, rows, n_samples, steps, positions, sizes)
        draws.append(transform.draw(details))
    return plan._replace(draws=map_leaves(np.ascontiguousarray, tuple(draws)))


def without_first(plan: EpochPlan, n_steps: int) -> EpochPlan:
    """Return a plan without its first ``n_steps`` steps."""
    if not n_steps:
        return plan
    start = n_steps * plan.batch_size
    rows, weights, draws, positions = (
        None if values is None else map_leaves(lambda leaf: leaf[start:], values)
        for values in (plan.rows, plan.weights, plan.draws, plan.positions)
    )
    counts, totals = plan.counts[n_steps:], plan.totals[n_steps:]
    parts = None if plan.parts is None else plan.parts[n_steps:]
    return EpochPlan(rows, weights, plan.batch_size, counts, totals, draws, positions, parts)
