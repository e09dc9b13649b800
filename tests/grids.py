"""Select a few cases of a parametrized test, so that large grids do not take too long."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

SIZES = {"values": 1, "pairs": 2}


def covering(cases: Sequence[Mapping[str, Hashable]], size: int) -> list[int]:
    """Return the indices of cases that cover every combination of ``size`` parameter values.

    Only combinations that occur in the given cases must be covered. The algorithm is greedy: it
    repeatedly selects the case with the most missing combinations.
    """
    found = []
    for case in cases:
        values = sorted(case.items(), key=lambda value: value[0])
        found.append(set(combinations(values, min(size, len(values)))))
    missing = set().union(*found)
    chosen = []
    while missing:
        best = max(range(len(cases)), key=lambda i: len(found[i] & missing))
        chosen.append(best)
        missing -= found[best]
    return sorted(chosen) or [0]


def value_of(parameter: object) -> Hashable:
    """Return a hashable key for a parameter's value."""
    try:
        hash(parameter)
    except TypeError:
        return id(parameter)
    return type(parameter), parameter
