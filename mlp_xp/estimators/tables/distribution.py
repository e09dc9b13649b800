"""The distribution of a column in the training data, with which new data can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mlp_xp._utils.columns.kinds import Category
from mlp_xp._utils.dataclass import dataclass

_N_BINS = 10
_MOST_SORTED = 10_000
_MOST_CATEGORIES = 20  # Counted one by one; all others are counted together.


class Observed(NamedTuple):
    """The values of a column in some rows of new data.

    ``counts`` are the numbers of rows in the bins of a `ColumnDistribution`. ``unknown`` counts the
    categories that are not inputs.
    """

    n_rows: int
    n_missing: int
    counts: np.ndarray
    unknown: Counter[Category]
    n_below: int = 0
    n_above: int = 0
    low: float | None = None
    high: float | None = None

    def join(self, other: Observed) -> Observed:
        """Return the counts of both parts of the data."""
        lows = [part.low for part in (self, other) if part.low is not None]
        highs = [part.high for part in (self, other) if part.high is not None]
        return Observed(
            self.n_rows + other.n_rows,
            self.n_missing + other.n_missing,
            self.counts + other.counts,
            self.unknown + other.unknown,
            self.n_below + other.n_below,
            self.n_above + other.n_above,
            min(lows, default=None),
            max(highs, default=None),
        )


@dataclass(frozen=True)
class ColumnDistribution:
    """The distribution of a column in the training data.

    Parameters
    ----------
    n_rows, n_missing : int
        The number of rows, and of rows without a value.
    counts : tuple of int
        The number of rows in each bin. For numbers and dates, each bin begins above an edge, and
        ends at the next. For categories, there is a bin for each of `categories`, then one for
        other categories that are inputs, and one for categories that are too rare to be inputs.
    edges : tuple of float
        Increasing; at most nine, near the deciles. Dates are days since 1970.
    low, high : float or None
        The smallest and the largest number or date; None for categories.
    categories : tuple
        The most frequent categories, at most 20.
    """

    n_rows: int
    n_missing: int
    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    categories: tuple[Category, ...] = ()

    @property
    def fraction_missing(self) -> float:
        """The fraction of rows without a value."""
        return self.n_missing / self.n_rows

    @property
    def is_valid(self) -> bool:
        """Whether the fields, which may come from a file, fit together."""
        whole = self.n_rows, self.n_missing, *self.counts
        line = () if self.low is None else (self.low, *self.edges, self.high)
        are_right = all(type(n) is int and n >= 0 for n in whole)
        are_right &= all(type(value) is float and np.isfinite(value) for value in line)
        are_right &= all(type(value) in (str, float) for value in self.categories)
        n_bins = len(self.edges) + 1 if line else len(self.categories) + 2
        if not are_right or len(self.counts) != n_bins or (self.edges and not line):
            return False
        is_ordered = [*line] == sorted(line) and len({*self.edges}) == len(self.edges)  # type: ignore[type-var]
        return is_ordered and 0 < self.n_rows == self.n_missing + sum(self.counts)

    def count_numbers(self, values: np.ndarray) -> Observed:
        """Count new numbers, ``(rows,)`` with NaN for missing values, in the bins."""
        assert self.low is not None
        assert self.high is not None
        there = values[~np.isnan(values)].astype(np.float64)
        found = np.searchsorted(np.asarray(self.edges), there)
        counts = np.bincount(found, minlength=len(self.counts))
        n_outside = [int(np.count_nonzero(x)) for x in (there < self.low, there > self.high)]
        ends = (float(there.min()), float(there.max())) if len(there) else (None, None)
        n_rows, unknown = len(values), Counter[Category]()
        return Observed(n_rows, n_rows - len(there), counts, unknown, *n_outside, *ends)

    def count_categories(
        self, found: Mapping[Category, int], n_rows: int, known: Sequence[Category]
    ) -> Observed:
        """Count new categories in the bins; ``known`` are all categories that are inputs."""
        inputs, n_found = {*known}, sum(found.values())
        unknown = Counter({value: n for value, n in found.items() if value not in inputs})
        bins = [found.get(category, 0) for category in self.categories]
        n_unknown = unknown.total()
        counts = np.asarray([*bins, n_found - sum(bins) - n_unknown, n_unknown])
        return Observed(n_rows, n_rows - n_found, counts, unknown)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not empty."""
        return {name: v for name, v in vars(self).items() if v not in ((), None)}


def learn_numbers(values: np.ndarray) -> ColumnDistribution:
    """Return the distribution of numbers, ``(rows,)`` with NaN for missing values.

    The edges are values of the training data, so equal values are in the same bin.
    """
    there = values[~np.isnan(values)].astype(np.float64)
    n, high = len(there), float(there.max())
    some = np.sort(there[:: -(-n // _MOST_SORTED)])  # The edges need not be exact.
    edges = np.unique(some[-(-len(some) * np.arange(1, _N_BINS) // _N_BINS) - 1])
    edges = edges[edges < high]
    ends = [0, *(int(np.count_nonzero(there <= edge)) for edge in edges), n]
    counts = tuple(end - start for start, end in pairwise(ends))
    n_rows, lines = len(values), tuple(edges.tolist())
    return ColumnDistribution(n_rows, n_rows - n, counts, lines, float(there.min()), high)


def learn_categories(
    counts: Mapping[Category, int], n_rows: int, inputs: Sequence[Category]
) -> ColumnDistribution:
    """Return the distribution of categories, of which some are ``inputs``."""
    by_count = sorted(inputs, key=lambda category: -counts[category])
    categories, others = by_count[:_MOST_CATEGORIES], by_count[_MOST_CATEGORIES:]
    n_found, n_others = sum(counts.values()), sum(counts[category] for category in others)
    common = [counts[category] for category in categories]
    bins = (*common, n_others, n_found - n_others - sum(common))
    return ColumnDistribution(n_rows, n_rows - n_found, bins, categories=tuple(categories))


def decode_distribution(fields: Any) -> ColumnDistribution | None:
    """Return a distribution from JSON; raise ValueError or TypeError if it is invalid."""
    if fields is None:
        return None
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    found = ColumnDistribution(**fields | lists)
    if not found.is_valid:
        raise ValueError(f"distributions has {str(fields)[:200]}")
    return found
