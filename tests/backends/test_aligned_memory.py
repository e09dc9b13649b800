"""What steps on NumPy read and write starts at a cache line."""

from __future__ import annotations

import numpy as np
import pytest

from mlp_xp._utils.tree import leaves
from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.compiled_step import CompiledStep
from mlp_xp.backends._numpy.memory import aligned, empty, in_one_piece, joined
from mlp_xp.optimizers import Adam


def starts_at_line(array):
    return array.ctypes.data % 64 == 0


@pytest.mark.parametrize("shape", [(), (7,), (600, 70), (1_000, 1_000)])
def test_memory_starts_at_a_line(shape):
    for dtype in ("float32", "float64", "int32", "bool"):
        kept = [empty(shape, np.dtype(dtype)) for _ in range(5)]
        for array in kept:
            assert array.shape == shape
            assert array.dtype == dtype
            assert starts_at_line(array)
            assert array.flags.c_contiguous
            assert array.flags.writeable


def test_small_arrays_lie_one_after_the_other_and_are_one_vector():
    small = [np.full((2, 3), 1.0), np.full(4, 2.0, np.float32), np.full((), 3.0), np.ones(5).T]
    large = np.full((100, 100), 4.0)
    copies = joined([small[0], small[1], large, *small[2:]])
    assert copies[2] is large
    for copy, array in zip(copies, (*small[:2], large, *small[2:]), strict=True):
        np.testing.assert_array_equal(copy, array)
        assert copy.dtype == array.dtype
        assert copy.flags.c_contiguous
    whole = in_one_piece([copies[0], *copies[3:]])
    np.testing.assert_array_equal(whole, [1.0] * 6 + [3.0] + [1.0] * 5)
    copies[3][...] = 9.0
    assert whole[6] == 9.0
    assert in_one_piece([copies[0], copies[4]]) is None  # There is a number between them.
    assert in_one_piece([copies[3], copies[0]]) is None
    assert in_one_piece(copies[:2]) is None
    assert in_one_piece(small[:1]) is None
    assert in_one_piece(joined([np.ones(3), np.ones((2, 2))])).tolist() == [1.0] * 7
    memory = np.zeros((3, 4), order="F")
    assert in_one_piece([memory.T[0], memory.T[1]]) is None  # Its vector would be a copy.


def test_an_array_is_copied_only_where_it_does_not_start_at_a_line():
    array = empty((200, 160), np.dtype("float32"))
    assert aligned(array) is array
    small = array[:3, 1:]
    assert aligned(small) is small
    array[...] = np.arange(32_000.0).reshape(200, 160)
    for part in (array[:, 1:], array.T[1:]):
        copy = aligned(part)
        assert starts_at_line(copy)
        np.testing.assert_array_equal(copy, part)


def test_state_and_results_of_steps_start_at_a_line(pool_of):
    pytest.importorskip("numba")
    backend, found = get_backend("numpy"), []
    memory = empty((4 + 600 * 32,), np.dtype("float32"))
    memory[...] = 1.0
    params = (memory[4:].reshape(600, 32),)

    def step(state, x):
        y = state[0] * x
        found.append(y.value)
        return (y + state[0], *state[1:])

    with pool_of(2):
        state = backend.share(Adam(), params, (params,))
        again = backend.share(Adam(), *state)
        CompiledStep(step)(state[0], np.ones((600, 32), "f4"))
    assert all(map(starts_at_line, (*leaves(state), *found)))
    assert all(a is b for a, b in zip(leaves(state), leaves(again), strict=True))
    # Outside of machine code they stay where they are.
    assert backend.share(Adam(), params, ())[0] is params
