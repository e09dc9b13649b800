"""The stand-in's arrays and functions beside CuPy's: the same names, called in the same way."""

from __future__ import annotations

import pytest
import side_by_side

MODULES = ("cupy", "cupy.linalg")


@pytest.fixture(scope="module")
def both():
    return side_by_side.offered("array_names.py", *MODULES, packages=("cupy",))


def test_every_name_is_one_of_cupys(both):
    ours, theirs = both
    assert len(ours) > 390
    assert not ours.keys() - theirs.keys()


def test_everything_is_called_in_the_same_way(both):
    ours, theirs = both
    # CuPy tells the parameters of all of them, of Cython's in docstrings; operators have none.
    assert not {name for name in ours if theirs[name] is None}
    different = {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}
    assert not different


def test_kernels_take_and_refuse_the_same():
    ours, real = side_by_side.offered("../backends/kernel_cases.py", packages=("cupy",))
    for name, outcome in ours.items():
        if "__init__() " in outcome:  # Cython words this otherwise.
            assert "__init__() " in real[name], name
        else:
            assert outcome == real[name], name
