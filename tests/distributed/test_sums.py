"""The kernel that sums over ranks: what it may write to, and what it returns."""

from __future__ import annotations

import numpy as np
import pytest

from mlp_xp.backends import Communicator


class Twice(Communicator):
    """Two ranks with the same numbers, in one process."""

    rank, size = 0, 2

    def sum(self, arrays):
        addresses = [array.ctypes.data for array in arrays]
        assert len(set(addresses)) == len(addresses)
        for array in arrays:
            assert array.flags.c_contiguous
            array *= 2

    def start_sum(self, array):
        self.sum([array])
        return lambda: None

    def broadcast(self, value, root=0):
        return value

    def gather(self, value):
        return [value] * 2

    def barrier(self):
        pass

    def abort(self, code=1):
        raise AssertionError


def arrays(backend):
    a = backend.put(np.arange(6.0).reshape(2, 3))
    number = backend.xp.sum(a)
    # The same array twice, one in other order, one without axes.
    return a, (a, a.T), number


@pytest.mark.libraries("numpy", "torch", "jax", "array_api_strict")
def test_each_array_is_summed_once(backend):
    xp = backend.xp
    kernel = backend.with_ranks(Twice()).kernels.sum_over_ranks
    with backend.scope():
        a, (b, c), number = map_host(backend, kernel(arrays(backend)))
        whole = 2 * np.arange(6.0).reshape(2, 3)
        for found, expected in ((a, whole), (b, whole), (c, whole.T), (number, 30.0)):
            np.testing.assert_array_equal(found, expected)
        assert kernel(xp.asarray(3.0, dtype=xp.float64)).shape == ()


def map_host(backend, tree):
    if isinstance(tree, tuple):
        return tuple(map_host(backend, branch) for branch in tree)
    return backend.get(tree)


@pytest.mark.libraries("numpy", "torch", "jax", "array_api_strict")
def test_backends_of_the_same_ranks_are_one(backend):
    ranks = Twice()
    assert backend.with_ranks(None) is backend
    assert backend.with_ranks(ranks) == backend.with_ranks(ranks)
    assert backend.with_ranks(ranks) != backend
    assert (backend.n_ranks, backend.with_ranks(ranks).n_ranks) == (1, 2)


@pytest.mark.libraries("jax")
def test_a_jax_function_is_compiled_in_pieces(backend):
    """With sums at its beginning, at its end, of constants and of each other's results."""
    shared = backend.with_ranks(Twice())
    total, xp = shared.kernels.sum_over_ranks, backend.xp

    def function(state, x):
        a, b = state
        a = total(a)
        (c, one) = total((a @ x, xp.ones(())))
        return (total(c + b * one), b), x

    with shared.scope():
        given = backend.put(np.eye(2)), backend.put(np.ones((2, 2)))
        x = backend.put(np.full((2, 2), 3.0))
        for compiled in (shared.compile(function, donate=True), shared.compile(function)):
            copies = tuple(xp.asarray(leaf, copy=True) for leaf in given)
            (a, b), same = compiled(copies, x)
            np.testing.assert_array_equal(a, np.full((2, 2), 28.0))
            np.testing.assert_array_equal(b, np.ones((2, 2)))
            np.testing.assert_array_equal(same, x)
