"""Reductions of short rows and comparisons with a number have the bits of NumPy's own."""

from __future__ import annotations

import numpy as np
import pytest

from mlp_xp.backends import get_backend
from mlp_xp.backends._numpy.compiled_step import CompiledStep

XP = get_backend("numpy").xp


def assert_same_bits(function, state, *arguments):
    """Compare a function with its program, twice: arguments are other ones at the second call."""
    expected = tuple(array.copy() for array in state)
    compiled = CompiledStep(function)
    for given in (arguments, tuple(2 * array for array in arguments)):
        expected = tuple(array.copy() for array in function(expected, *given))
        state = compiled(state, *given)
        for mine, plain in zip(state, expected, strict=True):
            assert mine.dtype == plain.dtype
            np.testing.assert_array_equal(mine, plain)
            is_number = ~np.isnan(plain)
            np.testing.assert_array_equal(np.signbit(mine[is_number]), np.signbit(plain[is_number]))
    assert compiled.is_traceable
    assert len(compiled.programs) == 1


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("n_rows", [1, 5, 108])
@pytest.mark.parametrize("n_columns", [1, 2, 3, 7, 8, 32, 33])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_reduced_with_the_same_bits(dtype, n_columns, n_rows, keepdims, rng):
    x = rng.standard_normal((n_rows, n_columns)).astype(dtype)
    x[0, -1] = np.nan
    functions = XP.max, XP.min, XP.sum
    state = tuple(np.zeros((n_rows, 1) if keepdims else n_rows, dtype) for _ in functions)

    def reduced(state, x):
        shifted = x + x  # What is computed, and not given.
        return tuple(
            place + function(values, axis=-1, keepdims=keepdims)
            for place, function, values in zip(state, functions, (x, shifted, x), strict=True)
        )

    assert_same_bits(reduced, state, x)


@pytest.mark.parametrize("axis", [0, (0, 1), -2])
def test_other_axes_and_columns_that_lie_apart_are_reduced_too(axis, rng):
    x, apart = rng.standard_normal((3, 3)), rng.standard_normal((3, 40)).T
    shape = np.max(x, axis=axis).shape

    def reduced(state, x, apart):
        first, second, third = state
        sums = XP.sum(apart[::2, :], axis=-1)
        return first + XP.max(x, axis=axis), second + XP.sum(x, axis=axis), third + sums

    assert_same_bits(reduced, (np.zeros(shape), np.zeros(shape), np.zeros(20)), x, apart)


@pytest.mark.parametrize("shape", [(1,), (5, 3), (200, 700)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_compared_with_the_same_bits(dtype, shape, rng):
    x = rng.standard_normal(shape).astype(dtype)
    x[..., :1] = np.nan

    def compared(state, x):
        return state[0] + XP.maximum(x, 0.1), XP.minimum(state[1] + x, 0.3)

    assert_same_bits(compared, (np.zeros_like(x), np.zeros_like(x)), x)
