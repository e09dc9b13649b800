"""Values of layers, activations and dropout, and hidden layers that are more than a width."""

from dataclasses import dataclass

import array_api_compat.numpy as np_xp
import numpy as np
import pytest
from helpers import close, pickled_and_saved, problem, tolerance
from loss_cases import PLAIN_ACTIVATIONS
from network_cases import ARRANGEMENTS, EPSILON, SQUARES, block_params, norm_params
from sklearn.base import clone
from sklearn.datasets import load_digits

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp._utils.tree import map_leaves
from mlp_xp.nn import blocks, layers
from mlp_xp.nn.blocks import Activate, Affine, Residual
from mlp_xp.nn.hidden import Blocks, Branch, Layer, Project
from mlp_xp.nn.layers import ACTIVATIONS, Arrangement, Norm, batch_norm, dropout, layer_norm
from mlp_xp.nn.network import Network, forward, init_params

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
def test_block_layers_combine_the_right_axes(backend, name, dtype, rng):
    how = ARRANGEMENTS[name]
    x = rng.standard_normal((5, int(np.prod(how.shape))))
    params, x = map_leaves(lambda a: a.astype(dtype), (block_params(how, rng), x))
    with backend.scope():
        y, _ = layers.block_dense(*map_leaves(backend.put, (params, x)), how, xp=backend.xp)
        close(backend.get(y), plain_block_dense(*params, x, how), 10 * how.fan_in)


@dtypes
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("settings", [{}, {"epsilon": EPSILON}], ids=["default", "epsilon"])
def test_normalizations_match_their_formulas(backend, settings, weighted, dtype, rng):
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
def test_batch_norm_is_finite_if_all_sample_weights_are_zero(backend, rng, dtype):
    params, x = map_leaves(lambda a: a.astype(dtype), (norm_params(rng, 3), rng.random((4, 3))))
    with backend.scope(), np.errstate(all="raise"):
        here, there, weights = map_leaves(backend.put, (params, x, np.zeros(4, dtype)))
        y, pullback, stats = batch_norm(here, there, weights, xp=backend.xp)
        dx, grads = pullback(0.0 * y, need_dx=True)
        y, *others = map(backend.get, (y, dx, *grads, *stats))
    assert all(np.isfinite(a).all() and a.dtype == dtype for a in (y, *others))
    assert not any(a.any() for a in others)


def test_normalization_of_a_constant_feature_is_finite(backend):
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
def test_activations_match_their_formulas(backend, name, dtype, rng):
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
def test_activations_are_finite_at_extreme_inputs(backend, name, dtype):
    assert name != "exp"  # exp overflows, so hidden layers cannot have it.
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
def test_dropout_masks_match_the_published_hash(backend, key):
    for rate in (0.0, 0.1, 0.5, 0.999, 1 - 2**-40):
        expected = plain_mask(key, rate, (17, 31))
        np.testing.assert_array_equal(mask(backend, key, rate, (17, 31)), expected)


@dtypes
def test_dropout_scales_kept_values_and_gradients(backend, dtype, rng):
    x, dy = (rng.standard_normal((2, 30, 20)) + 5).astype(dtype)
    kept = plain_mask(3, 0.2, x.shape)
    with backend.scope():
        here, there = (backend.put(array.copy()) for array in (x, dy))
        y, pullback = dropout(here, put_key(backend, 3), 0.2, xp=backend.xp)
        y, dx = backend.get(y), backend.get(pullback(there))
        close(y, np.where(kept, x / 0.8, 0).astype(dtype), 1)
        close(dx, np.where(kept, dy / 0.8, 0).astype(dtype), 1)
        np.testing.assert_array_equal(backend.get(here), x)  # Neither argument is overwritten.
        np.testing.assert_array_equal(backend.get(there), dy)


def test_networks_are_built_from_the_described_blocks():
    network = Network((24, SQUARES, Branch((8, 12)), 3), "silu", "layer", 0.1)
    norm, down, up = blocks.LayerNorm(12), Affine(12, 8, "lecun"), Affine(8, 12, "zero")
    inner = (norm, down, Activate("silu"), blocks.Dropout(0.1, 0), up)
    squares = blocks.BlockAffine(Arrangement((3, 2, 2, 2), (0, 1, 3), 6), "lecun")
    assert network.blocks == ((squares,), (Residual(inner),), (norm, Affine(12, 3, "zero")))
    assert (network.sizes, network.n_keys) == ((24, 12, 12, 3), 1)


def test_new_branch_has_no_effect(rng):
    network = Network((24, Project(5), Branch((7, 5)), 4), "tanh", "layer")
    params, x, h = init_params(network, 0), rng.random((3, 24)), rng.random((3, 5))
    np.testing.assert_array_equal(forward(network, params, x, xp=np_xp)[0], 0.0)
    np.testing.assert_array_equal(network.blocks[1][0](params[1], h, blocks.Context(np_xp))[0], h)


def test_initial_standard_deviation_is_one_over_sqrt_fan_in():
    params = init_params(Network((24, Blocks((2, 12), (1,), 500), Project(400), 2)), 0)
    for layer, fan_in in zip(params, (12, 1000), strict=False):
        assert np.std(layer.W) == pytest.approx(fan_in**-0.5, rel=0.02)
        assert not np.any(layer.b)


MISTAKES = [
    (lambda: Project(0), "`width` must be an integer of at least 1, got 0"),
    (lambda: Blocks((4, 6), ()), r"`mixed` must contain .* axes 0 to 1 .* got \(\)"),
    (lambda: Blocks((4, 6), (2,)), r"axes 0 to 1 of shape \(4, 6\), each at most once, got \(2,\)"),
    (lambda: Blocks((4, 6), (1, 1)), r"each at most once, got \(1, 1\)"),
    (lambda: Blocks((4, 6), (1,), 0), "`width` must be .* got 0"),
    (lambda: Blocks((4, 0), (1,)), "`shape` must be integers of at least 1, got 0"),
    (lambda: Branch(()), "Branch must have at least one layer"),
    (lambda: Branch((Branch((4, 5)), 5)), "may contain integers, Project and Blocks, got .* put"),
    (lambda: Branch((2.0,)), r"may contain integers, .* got 2\.0"),
    (lambda: Network((Project(3), Project(4))), "`widths` must be the widths"),
    (lambda: Network((5, Blocks((4, 6), (1,)), 2)), "5 elements, .* with 24"),
    (lambda: Network((5, Branch((7, 6)), 2)), "has 5 inputs and 6 outputs: .* have 5"),
]


@pytest.mark.parametrize(("make", "message"), MISTAKES)
def test_invalid_layers_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


HIDDEN = Blocks((2, 4, 2, 4), (1, 3), 8), Branch((Blocks((2, 2, 8), (0, 1)),)), 20, Branch((24, 20))
SOLVERS = {
    "adam": {"max_iter": 5, "learning_rate": "cosine", "learning_rate_init": 0.01},
    "lbfgs": {"max_iter": 12},
}
DIGITS, DIGIT_LABELS = (array[:300] for array in load_digits(return_X_y=True))


def small(solver="adam", **settings):
    settings = SOLVERS[solver] | {"batch_size": 50, "normalization": "layer"} | settings
    settings |= {"random_state": 0, "input_scaling": "standardize"}
    return MLPClassifier(HIDDEN, solver=solver, **settings)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("solver", SOLVERS)
def test_block_network_learns_equally_on_all_backends(backend, solver):
    X, y = DIGITS, DIGIT_LABELS
    model = small(solver, backend=backend.name, device=backend.device).fit(X, y)
    shapes = [(4, 16, 8), (8, 4, 4), (32, 20), (20, 24), (24, 20), (20, 10)]
    assert [tuple(W.shape) for W in model.coefs_] == shapes
    assert model.score(X, y) > 0.8
    assert model.hidden_activations(X, 0).shape == (300, 32)
    assert model.loss_ == pytest.approx(small(solver).fit(X, y).loss_, rel=1e-7)


def test_block_network_can_be_saved_pickled_and_cloned(tmp_path):
    X, y = DIGITS, DIGIT_LABELS
    model = small(max_iter=1).fit(X, y)
    for copy in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
        assert copy.hidden_layer_sizes == HIDDEN
    for again in (clone(model), clone(model).set_params(hidden_layer_sizes=list(HIDDEN))):
        np.testing.assert_array_equal(again.fit(X, y).coefs_[0], model.coefs_[0])
    text = str(model.summary())
    assert "4 dense blocks" in text
    assert "residual" in text


def test_hidden_layer_sizes_can_be_a_single_layer_object():
    one = MLPRegressor(hidden_layer_sizes=Project(3), max_iter=1, learning_rate="cosine")
    assert [W.shape for W in one.fit(DIGITS, DIGIT_LABELS).coefs_] == [(64, 3), (3, 1)]
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must be > 0, got \[0\]"):
        MLPRegressor(hidden_layer_sizes=[Project(3), 0]).fit(DIGITS, DIGIT_LABELS)


@dataclass(frozen=True)
class Gentle(Layer):
    """A residual dense layer with the network's activation and dropout."""

    width: int

    def outputs(self, fan_in):
        return self.width

    def build(self, fan_in, around):
        return Residual((Affine(fan_in, self.width), *around.activate(self.width)))


def test_a_user_defined_layer_trains_like_its_built_in_equivalent(backend):
    settings = {"dropout": 0.2, "max_iter": 10, "random_state": 0, "learning_rate_init": 0.02}
    settings |= {"backend": backend.name, "device": backend.device}
    model = MLPClassifier((5, Gentle(5)), **settings).fit(*problem())
    assert [W.shape for W in model.coefs_] == [(6, 5), (5, 5), (5, 3)]
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    network = Network((6, Gentle(6), 3), dropout=0.2)
    assert (network.n_keys, network.takes_sparse) == (1, False)
