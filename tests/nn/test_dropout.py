"""Dropout: the same masks everywhere, and what they must be like."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import close, make_backend
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mlp_xp.nn.layers import (
    dropout,
)
from mlp_xp.nn.layers._dropout import _hash_positions

shapes = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    # The fixture is the backend, the same for all examples.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Few, with 1 among them: JAX compiles each operation anew for each shape.
sizes = st.sampled_from([1, 3, 8])
seeds = st.integers(0, 2**31)
# With an epsilon as large as the variance, a batch of 1 has a gradient that can be measured, and a
# formula that forgets epsilon is seen.
KEYS = (0, 1, -1, 12345, 2**31 - 1, -(2**31))


def put_key(backend, key: int):
    return backend.put(np.asarray(key, dtype=np.int32))


def mask(backend, key: int, rate: float, shape=(128, 512)) -> np.ndarray:
    """Return whether each element is kept."""
    with backend.scope():
        x = backend.put(np.ones(shape, dtype=np.float32))
        y, _ = dropout(x, put_key(backend, key), rate, xp=backend.xp)
        return backend.get(y) != 0


def lowbias32(value: int) -> int:
    """Hash as published, in Python's integers (https://nullprogram.com/blog/2018/07/31/)."""
    value ^= value >> 16
    value = value * 0x7FEB352D % 2**32
    value ^= value >> 15
    value = value * 0x846CA68B % 2**32
    return value ^ value >> 16


@pytest.mark.parametrize("key", KEYS)
def test_hash_is_lowbias32(backend, key):
    with backend.scope():
        x = backend.put(np.zeros((40, 25)))
        bits = backend.get(_hash_positions(x, put_key(backend, key), xp=backend.xp))
    expected = [lowbias32((p * 0x9E3779B1 ^ key) % 2**32) for p in range(1000)]
    assert bits.dtype == np.int32
    assert bits.view(np.uint32).tolist() == expected


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("key", KEYS)
def test_masks_are_the_same_on_all_backends(backend, key, rate):
    np.testing.assert_array_equal(
        mask(backend, key, rate, (17, 31)), mask(make_backend("numpy"), key, rate, (17, 31))
    )


def test_a_new_key_needs_no_new_compilation():
    jax = pytest.importorskip("jax")
    backend = make_backend("jax:cpu")
    compilations = []

    def function(x, key):
        compilations.append(1)
        y, pullback = dropout(x, key, 0.3, xp=backend.xp)
        return y, pullback(x)

    with backend.scope():
        x, compiled = backend.put(np.ones((17, 31), dtype=np.float32)), jax.jit(function)
        for key in KEYS:
            y, dx = (backend.get(a) for a in compiled(x, put_key(backend, key)))
            expected = mask(make_backend("numpy"), key, 0.3, (17, 31))
            np.testing.assert_array_equal(y != 0, expected)
            np.testing.assert_array_equal(dx, y)
    assert len(compilations) == 1


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
def test_share_of_kept_elements(rate):
    backend = make_backend("numpy")
    kept = np.stack([mask(backend, key, rate) for key in range(200)])
    sigma = (rate * (1 - rate)) ** 0.5
    assert abs(kept.mean() - (1 - rate)) < 4 * sigma / kept.size**0.5
    # Mask by mask it varies as independent draws do; of 200 the farthest may be beyond 4 sigma.
    each = (kept.mean(axis=(1, 2)) - (1 - rate)) * kept[0].size ** 0.5 / sigma
    assert abs(each).max() < 5
    assert abs(each.var() - 1) < 4 * (2 / each.size) ** 0.5
    # Rows and columns too: their sums vary as those of independent draws do.
    for axis in (1, 2):
        n = kept.shape[axis]
        z = (kept.sum(axis=axis) - n * (1 - rate)) / (n * rate * (1 - rate)) ** 0.5
        assert abs(z.var() - 1) < 5 * (2 / z.size) ** 0.5


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation in units of its standard deviation for independent draws."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * a.size**0.5


@pytest.mark.parametrize("width", [10, 256, 512])
@pytest.mark.parametrize("key", KEYS)
def test_elements_of_a_mask_do_not_correlate(key, width):
    kept = mask(make_backend("numpy"), key, 0.5, (256, width))
    flat = kept.ravel()
    for lag in (1, 2, 3, 4, 8, 16, 64, width, 2 * width, 64 * width):
        assert abs(correlation(flat[lag:], flat[:-lag])) < 4.5, lag
    # Rows with rows and columns with columns, all pairs: the largest of so many draws.
    signs = np.where(kept, 1.0, -1.0)
    for values in (signs, signs.T):
        pairs = (values @ values.T)[np.triu_indices(len(values), 1)] / values.shape[1] ** 0.5
        assert abs(pairs.var() - 1) < max(0.1, 6 * (2 / pairs.size) ** 0.5)
        assert abs(pairs).max() < 6


def test_keys_give_unrelated_masks():
    # Keys that differ in one bit are the hardest, and so are neighbors.
    keys = [*range(16), *(1 << n for n in range(4, 31)), *(-k for k in range(1, 9))]
    backend = make_backend("numpy")
    masks = np.stack([mask(backend, key, 0.5, (64, 128)).ravel() for key in keys])
    r = np.corrcoef(masks)
    pairs = r[np.triu_indices_from(r, 1)] * masks.shape[1] ** 0.5
    assert abs(pairs).max() < 5
    # Nor is one a shifted copy of another.
    for lag in (1, 2, 128):
        shifted = [correlation(a[lag:], b[:-lag]) for a in masks[:8] for b in masks[:8]]
        assert max(map(abs, shifted)) < 5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout(backend, dtype, rng):
    x = rng.standard_normal((30, 20)).astype(dtype) + 5
    dy = rng.standard_normal((30, 20)).astype(dtype)
    kept = mask(make_backend("numpy"), 3, 0.2, x.shape)
    x.flags.writeable = dy.flags.writeable = False
    before = x.copy(), dy.copy()
    with backend.scope():
        # torch warns of memory that it must not write to; it gets memory of its own.
        own = np.array if backend.name == "torch" else np.asarray
        y, pullback = dropout(backend.put(own(x)), put_key(backend, 3), 0.2, xp=backend.xp)
        y, dx = backend.get(y), backend.get(pullback(backend.put(own(dy))))
    close(y, np.where(kept, x / 0.8, 0).astype(dtype), 1)
    close(dx, np.where(kept, dy / 0.8, 0).astype(dtype), 1)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(dy, before[1])


def test_dropout_keeps_the_mean(rng):
    backend = make_backend("numpy")
    x = rng.random((128, 512))
    y, _ = dropout(x, put_key(backend, 99), 0.4, xp=backend.xp)
    sigma = (0.4 / 0.6 * np.mean(x**2) / x.size) ** 0.5
    assert abs(y.mean() - x.mean()) < 4 * sigma


def test_rates_at_the_ends(backend):
    assert mask(backend, 5, 0.0).all()
    assert mask(backend, 5, 1 - 2**-40).sum() <= 1
