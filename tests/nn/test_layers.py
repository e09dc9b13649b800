"""Values of layers, activations and dropout: formulas, dtypes, weights and extremes."""

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
from helpers import close, tolerance
from loss_cases import PLAIN_ACTIVATIONS
from network_cases import ARRANGEMENTS, EPSILON, block_params, norm_params

from mlp_xp._utils.tree import map_leaves
from mlp_xp.nn import layers
from mlp_xp.nn.layers import ACTIVATIONS, Norm, batch_norm, dropout, layer_norm

FUNCTIONS = ACTIVATIONS | {"exp": layers.exp}
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def plain_block_dense(W, b, x, how):
    places = np.arange(x.shape[1]).reshape(how.shape)
    kept = [i for i in range(len(how.shape)) if i not in how.mixed]
    rows = np.transpose(places, (*kept, *how.mixed)).reshape(W.shape[0], -1)
    y = [x[:, row] @ matrix for row, matrix in zip(rows, W, strict=True)]
    if how.width is not None:
        return np.concatenate(y, axis=1) + b
    out = np.empty_like(x)
    for row, part in zip(rows, y, strict=True):
        out[:, row] = part
    return out + b


@dtypes
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_blocks_mix_what_they_say(backend, name, dtype, rng):
    how = ARRANGEMENTS[name]
    x = rng.standard_normal((5, int(np.prod(how.shape))))
    params, x = map_leaves(lambda a: a.astype(dtype), (block_params(how, rng), x))
    with backend.scope():
        y, _ = layers.block_dense(*map_leaves(backend.put, (params, x)), how, xp=backend.xp)
        close(backend.get(y), plain_block_dense(*params, x, how), 10 * how.fan_in)


@dtypes
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("settings", [{}, {"epsilon": EPSILON}], ids=["default", "epsilon"])
def test_norms_are_their_formulas(backend, settings, weighted, dtype, rng):
    """With a mean that is not 0, and with weights, one of which is 0."""
    x = (3 + 2 * rng.standard_normal((6, 4))).astype(dtype)
    params = map_leaves(lambda a: a.astype(dtype), norm_params(rng, 4))
    weights = np.asarray([1, 2, 0, 1, 3, 0.5] if weighted else [1.0] * 6, dtype)
    epsilon = settings.get("epsilon", 1e-5)

    def plain(mean, variance):
        return (x - mean) / np.sqrt(variance + epsilon) * params.scale + params.shift

    with backend.scope():
        here, there, given = map_leaves(backend.put, (params, x, weights))
        given = given if weighted else None
        by_row, _ = layer_norm(here, there, xp=backend.xp, **settings)
        by_column, _, stats = batch_norm(here, there, given, xp=backend.xp, **settings)
        applied, _ = layers.apply_norm(here, stats, there, xp=backend.xp, **settings)
        found = (by_row, by_column, applied, *stats)
        by_row, by_column, applied, *stats = map_leaves(backend.get, found)
    mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    close(by_row, plain(mean, variance), 24)
    mean = np.average(x, axis=0, weights=weights)
    variance = np.average((x - mean) ** 2, axis=0, weights=weights)
    expected = plain(mean, variance), by_column, mean, variance
    for mine, theirs in zip((by_column, applied, *stats), expected, strict=True):
        close(mine, theirs, 24)


@dtypes
def test_weights_that_are_all_0_give_finite_numbers(backend, rng, dtype):
    params, x = map_leaves(lambda a: a.astype(dtype), (norm_params(rng, 3), rng.random((4, 3))))
    with backend.scope(), np.errstate(all="raise"):
        here, there, weights = map_leaves(backend.put, (params, x, np.zeros(4, dtype)))
        y, pullback, stats = batch_norm(here, there, weights, xp=backend.xp)
        dx, grads = pullback(0.0 * y, need_dx=True)
        y, *others = map(backend.get, (y, dx, *grads, *stats))
    assert all(np.isfinite(a).all() and a.dtype == dtype for a in (y, *others))
    assert not any(a.any() for a in others)


def test_a_constant_feature_gives_finite_numbers(backend):
    params, x = Norm(np.ones(3), np.full(3, 7.0)), np.full((4, 3), 5.0)
    with backend.scope():
        here, there, dy = map_leaves(backend.put, (params, x, np.ones((4, 3))))
        for y, pullback, *_ in (
            layer_norm(here, there, xp=backend.xp),
            batch_norm(here, there, None, xp=backend.xp),
        ):
            assert (backend.get(y) == 7.0).all()
            assert np.isfinite(backend.get(pullback(dy, need_dx=True)[0])).all()


@dtypes
@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_activation_is_its_formula(backend, name, dtype, rng):
    x = np.concatenate([[0.0, 1e-3, -1e-3, 30.0, -30.0], 3 * rng.standard_normal(40)]).astype(dtype)
    with backend.scope():
        y, _ = FUNCTIONS[name](backend.put(x), xp=backend.xp)
        y = backend.get(y)
    assert y.dtype == dtype
    # Relative to each element, so that small outputs are accurate too; these round near 0.
    atol = tolerance(dtype) if name in ("gelu", "tanh") else 0.0
    expected = PLAIN_ACTIVATIONS[name](x.astype("float64"), np_xp)
    np.testing.assert_allclose(y, expected, rtol=tolerance(dtype), atol=atol)


@dtypes
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_at_extremes(backend, name, dtype):
    assert name != "exp"  # It overflows, so it is no choice for hidden layers.
    with backend.scope(), np.errstate(all="raise", under="ignore"):
        x = backend.put(np.asarray([-1e4, -100.0, 0.0, 100.0, 1e4], dtype=dtype))
        y, pullback = ACTIVATIONS[name](x, xp=backend.xp)
        dx = backend.get(pullback(backend.xp.ones_like(y)))
        assert np.isfinite(backend.get(y)).all()
        assert np.isfinite(dx).all()
        assert dx.dtype == dtype


KEYS = (0, 1, -1, 12345, 2**31 - 1, -(2**31))


def put_key(backend, key):
    return backend.put(np.asarray(key, dtype=np.int32))


def mask(backend, key, rate, shape):
    with backend.scope():
        x = backend.put(np.ones(shape, dtype=np.float32))
        return backend.get(dropout(x, put_key(backend, key), rate, xp=backend.xp)[0]) != 0


def lowbias32(value):
    """Hash as published, in Python's integers (https://nullprogram.com/blog/2018/07/31/)."""
    value ^= value >> 16
    value = value * 0x7FEB352D % 2**32
    value ^= value >> 15
    value = value * 0x846CA68B % 2**32
    return value ^ value >> 16


def plain_mask(key, rate, shape):
    positions = range(shape[0] * shape[1])
    hashes = np.asarray([lowbias32((p * 0x9E3779B1 ^ key) % 2**32) for p in positions], np.uint32)
    return (hashes.view(np.int32) >= rate * 2**32 - 2**31).reshape(shape)


@pytest.mark.parametrize("key", KEYS)
def test_masks_are_those_of_the_published_hash(backend, key):
    for rate in (0.0, 0.1, 0.5, 0.999, 1 - 2**-40):
        expected = plain_mask(key, rate, (17, 31))
        np.testing.assert_array_equal(mask(backend, key, rate, (17, 31)), expected)


@dtypes
def test_dropout(backend, dtype, rng):
    x, dy = (rng.standard_normal((2, 30, 20)) + 5).astype(dtype)
    kept = plain_mask(3, 0.2, x.shape)
    with backend.scope():
        here, there = (backend.put(array.copy()) for array in (x, dy))
        y, pullback = dropout(here, put_key(backend, 3), 0.2, xp=backend.xp)
        y, dx = backend.get(y), backend.get(pullback(there))
        close(y, np.where(kept, x / 0.8, 0).astype(dtype), 1)
        close(dx, np.where(kept, dy / 0.8, 0).astype(dtype), 1)
        np.testing.assert_array_equal(backend.get(here), x)  # Neither is written to.
        np.testing.assert_array_equal(backend.get(there), dy)
