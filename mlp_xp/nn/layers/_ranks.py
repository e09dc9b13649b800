"""A rank's share of a batch, for the layers that look at all of the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mlp_xp._utils.array_types import Array, Tree

__all__ = ["RankShare"]


class RankShare(NamedTuple):
    """One rank's share of a batch that is spread over the ranks of a training.

    ``part`` is its part of the batch's weight, 0-d; ``positions : (batch,)`` int32 are those of its
    rows in the whole batch, or None where no dropout asks for them; ``sum_over_ranks`` returns a
    tree of arrays, which are donated, summed over all ranks.
    """

    part: Array
    positions: Array | None
    sum_over_ranks: Callable[[Tree], Tree]
