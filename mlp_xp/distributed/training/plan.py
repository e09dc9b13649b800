"""One rank's part of an epoch's plan: its rows of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mlp_xp._utils.tree import map_leaves
from mlp_xp.augmentation import Augmentation
from mlp_xp.training.data.epoch_plan import EpochPlan

# If data are sharded, a rank's number of rows varies from batch to batch. Rows are padded to a
# multiple of ``batch_size // _FRACTION``, since a new shape may require a compilation.
_FRACTION = 16


def rank_plan(
    plan: EpochPlan,
    rank: int,
    size: int,
    *,
    owned: np.ndarray | None = None,
    augmentation: Sequence[Augmentation] = (),
    with_positions: bool = False,
    n_shards: int = 0,
    takes_shards: bool = False,
) -> EpochPlan:
    """Return one rank's part of a plan; each row of a batch belongs to one rank.

    A rank computes a contiguous part of each batch; samples that are mixed with each other are in
    the same part. If ``owned`` is given, a rank computes the rows that it owns; ``owned`` contains
    each sample's position on this rank, or -1. Shorter parts are padded with rows of weight 0, so
    that all batches have the same shape. If ``n_shards`` is given, each rank's part of a batch
    consists of that many virtual shards with equal numbers of rows, and ``parts`` are 1 divided by
    the batch's total weight. If ``takes_shards`` is true, a step processes one shard after another,
    and positions in draws refer to the shard. Raise ValueError if mixed samples are on different
    ranks.
    """
    n_samples, batch_size = sum(plan.counts), plan.batch_size
    here = np.arange(n_samples)
    steps, positions = np.divmod(here, batch_size)
    rows = here.astype(np.int32) if plan.rows is None else plan.rows[:n_samples]
    partners = _partners(plan, augmentation)
    n_own = max(n_shards, 1)
    shards = np.zeros(n_samples, dtype=np.intp)
    n_widest = 0
    if owned is None:
        numbers = _part_numbers(plan, partners, size * n_own)
        shards = numbers % n_own
        chosen = np.flatnonzero(numbers // n_own == rank)
        if n_shards:  # `n_widest` is equal on all ranks.
            n_widest = int(np.bincount(steps * size * n_own + numbers).max())
    elif partners is not None:
        name = next(type(entry).__name__ for entry in augmentation if entry.mixes_targets)
        raise ValueError(
            f"augmentation has {name}, which mixes samples of a batch, but with data='sharded' "
            "these are on different ranks: pass all data to every rank with data='replicated', "
            f"or leave out {name}."
        )
    else:
        rows = owned[rows].astype(np.int32)
        chosen = np.flatnonzero(rows >= 0)

    # Compute the position of each chosen row in the padded batches.
    groups = steps * n_own + shards
    chosen = chosen[np.argsort(groups[chosen], kind="stable")]
    counts = np.bincount(groups[chosen], minlength=len(plan.counts) * n_own)
    slots = np.arange(len(chosen)) - (np.cumsum(counts) - counts)[groups[chosen]]
    multiple = 1 if owned is None else max(1, batch_size // _FRACTION)
    width = max(-(-int(counts.max()) // multiple) * multiple, n_widest, 1)
    n_rows = len(counts) * width
    source, is_filler = np.zeros(n_rows, dtype=np.intp), np.ones(n_rows, dtype=bool)
    places = groups[chosen] * width + slots
    source[places], is_filler[places] = chosen, False
    has_fillers = bool(np.any(is_filler))

    weights, own_totals = plan.weights, np.bincount(steps[chosen], minlength=len(plan.counts))
    if weights is not None or has_fillers or n_shards:
        weights = np.ones(n_samples) if weights is None else weights[:n_samples]
        own_totals = np.bincount(steps[chosen], weights[chosen], minlength=len(plan.counts))
        weights = np.where(is_filler, weights.dtype.type(0), weights[source])
    totals = np.asarray(plan.totals)
    own_totals = np.ones_like(totals) if n_shards else own_totals
    parts = np.divide(own_totals, totals, out=np.zeros_like(totals), where=totals > 0)

    draws = plan.draws
    if draws is not None:
        slot_of = np.zeros(n_samples, dtype=np.int32)
        n_together = width if takes_shards else n_own * width
        slot_of[chosen] = places % n_together

        def take(leaf: np.ndarray) -> np.ndarray:
            if leaf is not partners:
                return leaf[source]
            theirs = slot_of[steps[source] * batch_size + leaf[source]]
            own = np.arange(n_rows) % n_together
            return np.where(is_filler, own, theirs).astype(leaf.dtype)

        draws = map_leaves(take, draws)
    return plan._replace(
        rows=np.where(is_filler, np.int32(0), rows[source]),
        weights=weights,
        batch_size=n_own * width,
        draws=draws,
        positions=positions[source].astype(np.int32) if with_positions else None,
        parts=parts,
    )


def _partners(plan: EpochPlan, augmentation: Sequence[Augmentation]) -> np.ndarray | None:
    """Return the drawn mixing partners of the samples, if any."""
    for transform, drawn in zip(augmentation, plan.draws or (), strict=True):
        if transform.mixes_targets:
            partners: Any = transform.mixture(drawn).partners
            return partners
    return None


def _part_numbers(plan: EpochPlan, partners: np.ndarray | None, n_parts: int) -> np.ndarray:
    """Return the number of the part that contains each row of a batch, without padding.

    Rows that are mixed with each other form a unit that is not split.
    """
    n_samples = sum(plan.counts)
    steps, units = np.divmod(np.arange(n_samples), plan.batch_size)
    n_units = np.asarray(plan.counts)
    if partners is not None:
        theirs = steps * plan.batch_size + partners[:n_samples]
        edges = np.ones(n_samples, dtype=bool), (np.arange(n_samples), theirs)
        # Components are numbered in the order of their first rows, and therefore step by step.
        labels = connected_components(coo_array(edges, shape=(n_samples, n_samples)))[1]
        firsts = labels[:: plan.batch_size]
        units = labels - firsts[steps]
        n_units = np.diff(firsts, append=labels.max() + 1)
    # The first parts get one more unit, as in `numpy.array_split`.
    share, extra = (number[steps] for number in np.divmod(n_units, n_parts))
    longer = extra * (share + 1)  # The number of units in the larger parts.
    later = extra + (units - longer) // np.maximum(share, 1)
    numbers: np.ndarray = np.where(units < longer, units // (share + 1), later)
    return numbers
