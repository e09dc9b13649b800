"""Rows of data by position, and the part of the samples that one rank has."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from mlp_xp.training.rows import Shard, kept_dtype, some_rows, take_rows


def shard(make=np.asarray) -> Shard:
    x = make(np.asarray([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
    return Shard(x, np.asarray([-1, -1, 0, 1, 2, -1], dtype=np.int32))


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array])
def test_a_shard_counts_the_samples_of_all_ranks_and_has_its_own(make):
    whole = shard(make)
    assert whole.shape == (6, 2)
    assert (whole.dtype, kept_dtype(whole, "float32")) == (np.float64, "float32")
    assert take_rows(whole.mine, slice(None))[:, 0].tolist() == [1.0, 2.0, 3.0]


def test_some_samples_of_a_shard_are_a_shard_in_their_order():
    some = some_rows(shard(), np.asarray([4, 0, 2]))
    assert some.owned.tolist() == [2, -1, 0]
    assert take_rows(some.mine, slice(None))[:, 0].tolist() == [3.0, 1.0]


def test_a_shard_may_have_none_of_the_samples():
    nothing = some_rows(shard(), np.asarray([0, 5]))
    assert nothing.shape == (2, 2)
    assert take_rows(nothing.mine, slice(None)).shape == (0, 2)
