"""Choose a few cases of a parametrized test, so that grids of parameters stay affordable."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

SIZES = {"values": 1, "pairs": 2}


def covering(cases: Sequence[Mapping[str, Hashable]], size: int) -> list[int]:
    """Return the positions of cases that have every combination of ``size`` values of parameters.

    A combination counts where one of the cases has it. Greedy: the next case is the first of those
    that have the most combinations that are missing yet.
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
    """Return a key for the value of a parameter: itself where it can be hashed."""
    try:
        hash(parameter)
    except TypeError:
        return id(parameter)
    return type(parameter), parameter
