"""Walks over trees of tuples keep their structure and their types."""

from typing import NamedTuple

import pytest

from mlp_xp._utils.tree import leaves, map_leaves, rebuild


class Pair(NamedTuple):
    first: object
    second: object


class Nothing(NamedTuple):
    pass


TREES = {
    "leaf": (3, [3]),
    "empty": ((), []),
    "named": (Pair(1, (2, Pair(3, None))), [1, 2, 3, None]),
    "nothing": ((Nothing(), 1, ((), (Nothing(),))), [1]),
    "lists are leaves": (([1, 2], Pair([3], 4)), [[1, 2], [3], 4]),
}


def types(tree):
    return (type(tree), [types(branch) for branch in tree]) if isinstance(tree, tuple) else "leaf"


@pytest.mark.parametrize("name", TREES)
def test_a_tree_is_mapped_and_rebuilt_in_its_types(name):
    tree, values = TREES[name]
    assert list(leaves(tree)) == values
    for made in (map_leaves(str, tree), rebuild(tree, map(str, values))):
        assert list(leaves(made)) == list(map(str, values))
        assert types(made) == types(tree)
