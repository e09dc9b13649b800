"""The selection of grid cases."""

from itertools import product

import pytest
from grids import covering


@pytest.mark.parametrize(("size", "most"), [(1, 4), (2, 14)])
def test_covering_grid_contains_every_combination(size, most):
    cases = [
        {"a": a, "b": b, "c": c} for a, b, c in product("1234", "123", "12") if (a, b) != ("1", "1")
    ]
    kept = [cases[i] for i in covering(cases, size)]
    assert len(kept) <= most

    def occurring(cases):
        return {(x, case[x], y, case[y]) for case in cases for x in case for y in case}

    if size == 2:
        assert occurring(kept) == occurring(cases)
    for name in "abc":
        assert {case[name] for case in kept} == {case[name] for case in cases}
