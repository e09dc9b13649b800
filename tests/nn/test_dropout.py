"""Dropout: the same masks everywhere, and what they must be like."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import close, make_backend

from mlp_xp.nn.layers import dropout

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


def plain_mask(key: int, rate: float, shape) -> np.ndarray:
    positions = range(shape[0] * shape[1])
    hashes = np.asarray([lowbias32((p * 0x9E3779B1 ^ key) % 2**32) for p in positions], np.uint32)
    return (hashes.view(np.int32) >= rate * 2**32 - 2**31).reshape(shape)


@pytest.mark.parametrize("key", KEYS)
def test_masks_are_those_of_the_published_hash(backend, key):
    for rate in (0.0, 0.1, 0.5, 0.999):
        expected = plain_mask(key, rate, (17, 31))
        np.testing.assert_array_equal(mask(backend, key, rate, (17, 31)), expected)


@pytest.mark.matrix
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
            np.testing.assert_array_equal(y != 0, plain_mask(key, 0.3, (17, 31)))
            np.testing.assert_array_equal(dx, y)
    assert len(compilations) == 1


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation in units of its standard deviation for independent draws."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * a.size**0.5


def test_masks_look_like_independent_draws():
    # Keys that differ in one bit are the hardest, and so are neighbors.
    keys = [*range(16), *(1 << n for n in range(4, 31)), *(-k for k in range(1, 9))]
    backend, width = make_backend("numpy"), 128
    masks = np.stack([mask(backend, key, 0.5, (64, width)).ravel() for key in keys])
    r = np.corrcoef(masks)
    pairs = r[np.triu_indices_from(r, 1)] * masks.shape[1] ** 0.5
    assert abs(pairs).max() < 5
    # Nor is one a shifted copy of another, or of itself.
    for lag in (1, 2, 3, 4, 8, 16, 64, width, 2 * width, 16 * width):
        shifted = [correlation(a[lag:], b[:-lag]) for a in masks[:4] for b in masks[:4]]
        assert max(map(abs, shifted)) < 5, lag


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout(backend, dtype, rng):
    x, dy = (rng.standard_normal((2, 30, 20)) + 5).astype(dtype)
    kept = plain_mask(3, 0.2, x.shape)
    with backend.scope():
        here, there = (backend.put(array.copy()) for array in (x, dy))
        y, pullback = dropout(here, put_key(backend, 3), 0.2, xp=backend.xp)
        y, dx = backend.get(y), backend.get(pullback(there))
        close(y, np.where(kept, x / 0.8, 0).astype(dtype), 1)
        close(dx, np.where(kept, dy / 0.8, 0).astype(dtype), 1)
        # Neither is written to.
        np.testing.assert_array_equal(backend.get(here), x)
        np.testing.assert_array_equal(backend.get(there), dy)


def test_rates_at_the_ends(backend):
    assert mask(backend, 5, 0.0).all()
    assert mask(backend, 5, 1 - 2**-40).sum() <= 1
