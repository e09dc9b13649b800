"""Standardization, and whitening: a fixed layer that is found before the training."""

import numpy as np
import pytest
from helpers import tolerance
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from trainers import assert_close

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp._utils.random import constant
from mlp_xp.augmentation import Flip, Mixup
from mlp_xp.backends import get_backend
from mlp_xp.backends.kernels import Whitening
from mlp_xp.nn.blocks import PLE
from mlp_xp.nn.hidden import Project
from mlp_xp.training.data.input_scaling import Whiten, find_scaling, standardization

SHORT = {"hidden_layer_sizes": (12,), "max_iter": 2, "learning_rate": "cosine", "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400].astype(np.uint8), y[:400]


# Squares of float32 overflow above 1e19, and are 0 below 1e-23.
SIZES = [("float32", 3 * s, s) for s in (1e-35, 1e-25, 1e19, 1e37)]
SIZES += [("float32", 1e3, 1.0), ("float32", -1.7e9, 1700.0), ("float64", 100.0, 50.0)]


@pytest.mark.parametrize(("dtype", "offset", "spread"), SIZES)
def test_standardization_is_accurate_to_rounding(backend, dtype, offset, spread, rng):
    x = (offset + spread * rng.standard_normal((1300, 4))).astype(dtype)
    x[:, 1] = offset  # A constant one stays one.
    shift, scale = map(backend.get, standardization(backend, x, dtype))
    exact = x.astype(np.float64)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(shift, exact.mean(axis=0), rtol=8 * eps)
    expected = np.where(np.arange(4) == 1, 1.0, exact.std(axis=0))
    np.testing.assert_allclose(scale, 1.0 / expected, rtol=8 * eps)
    assert shift.dtype == scale.dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float32", 1e-44), ("float64", 1e160), ("float64", 1e-170), ("float64", 1e-320)],
)
def test_non_finite_variance_is_an_error(backend, rng, dtype, size):
    if backend.name == "jax" and size < np.finfo(dtype).tiny:
        pytest.skip("XLA may flush subnormal numbers to zero, and such a feature is then constant")
    x = rng.uniform(-1.0, 1.0, (50, 3)) * np.asarray([1.0, size, 1.0])
    with pytest.raises(ValueError, match=r"feature 1 to variance 1.*about 1\."):
        standardization(backend, x.astype(dtype), dtype)


@pytest.fixture
def x(rng):
    """Correlated features of different sizes, in more rows than a block has."""
    mixed = rng.standard_normal((1300, 6)) @ rng.standard_normal((6, 6))
    return mixed * np.asarray([1.0, 10.0, 0.1, 5.0, 2.0, 1.0]) + 7.0


def find(how, x, backend=None, dtype="float64"):
    backend = backend or get_backend("numpy")
    with backend.scope():
        return Whitening(*map(backend.get, find_scaling(how, backend, backend.put(x), dtype)))


def whiten(found, x):
    return ((x - found.shift) * found.scale) @ found.rotation


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_whitened_inputs_are_uncorrelated(backend, kind, x):
    white = whiten(find(Whiten(kind, epsilon=1e-12), x, backend), x)
    np.testing.assert_allclose(white.mean(axis=0), 0.0, atol=1e-11)
    np.testing.assert_allclose(white.T @ white / len(x), np.eye(6), atol=1e-8)
    if kind == "pca":  # Scikit-learn's, up to signs.
        fewer = whiten(find(Whiten("pca", 4, epsilon=1e-12), x, backend), x)
        theirs = PCA(4, whiten=True).fit_transform((x - x.mean(axis=0)) / x.std(axis=0))
        expected = theirs * np.sign(np.sum(fewer * theirs, axis=0))
        np.testing.assert_allclose(fewer, expected * (len(x) / (len(x) - 1)) ** 0.5, atol=1e-7)
    else:  # Symmetric; epsilon is a share of the mean variance, 1 of standardized features.
        rotation = find(Whiten(epsilon=0.5), x, backend).rotation
        np.testing.assert_allclose(rotation, rotation.T, atol=1e-12)
        inverse = np.corrcoef(x.T) + 0.5 * np.eye(6)
        np.testing.assert_allclose(rotation @ rotation @ inverse, np.eye(6), atol=1e-10)


@pytest.mark.parametrize("kind", ["zca", "pca"])
@pytest.mark.parametrize("n_varying", [0, 1])
def test_constant_features_are_whitened_to_0(backend, kind, n_varying, x):
    x = x.astype(np.float32)
    x[:, n_varying:] = 3.0
    found = find(Whiten(kind), x, backend, "float32")
    assert np.all(np.isfinite(found.rotation))
    assert np.sum(np.any(whiten(found, x), axis=0)) == n_varying
    model = MLPRegressor(**SHORT, input_scaling=kind).fit(x, x[:, 0])
    assert np.all(np.isfinite(model.predict(x)))


@pytest.mark.parametrize("seed", range(20))
def test_signs_of_whitening_directions_do_not_depend_on_rounding(backend, seed):
    """Both entries of each direction of two features have the same magnitude."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1000, 2)) @ rng.standard_normal((2, 2))
    found = find("pca", x.astype(np.float32), backend, "float32").rotation
    for order in (x[::-1], x[rng.permutation(1000)]):
        again = find("pca", order.astype(np.float32), backend, "float32").rotation
        np.testing.assert_allclose(again, found, atol=1e-3)


@pytest.mark.parametrize("setting", ["zca", "pca", Whiten("pca", 20), Whiten(epsilon=0.1)])
def test_whitening_in_fit_matches_whitening_the_inputs_beforehand(on, digits, setting):
    X, y = digits[0].astype(np.float64), digits[1]
    common = SHORT | {"batch_size": 100, "learning_rate_init": 0.01}
    model = MLPClassifier(**common, **on, input_scaling=setting).fit(X, y)
    before = whiten(find(Whiten(setting) if isinstance(setting, str) else setting, X), X)
    reference = MLPClassifier(**common).fit(before, y)
    assert tuple(model.coefs_[0].shape) == (before.shape[1], 12)
    assert model.n_features_in_ == 64
    assert model.loss_ == pytest.approx(reference.loss_, rel=1e-6)
    assert_close([model.predict_proba(X)], [reference.predict_proba(before)], atol=1e-5)


def test_images_are_augmented_before_whitening(digits):
    X, y = digits
    pictures = {"augmentation": [Flip((1, 8, 8)), Mixup(0.2)], "tta": Flip((1, 8, 8))}
    settings = SHORT | {"hidden_layer_sizes": (Project(12),), "input_scaling": "pca"} | pictures
    model = MLPClassifier(**settings).fit(X, y)
    mirrored = X.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64)
    atol = 10 * tolerance("float32", 64)
    np.testing.assert_allclose(model.predict_proba(X), model.predict_proba(mirrored), atol=atol)


def test_invalid_whitening_settings_are_rejected():
    for given, message in (
        ({"kind": "zcA"}, "`kind` must be 'zca' or 'pca', got 'zcA'"),
        ({"n_components": 3}, "`n_components` must .* requires kind='pca', got 3"),
        ({"kind": "pca", "n_components": 0}, "`n_components` must be an integer .* got 0"),
        ({"epsilon": 0.0}, r"`epsilon` must be above 0, got 0\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Whiten(**given)
    with pytest.raises(ValueError, match=r"`n_components` must be at most 4, .* got 9"):
        MLPClassifier(input_scaling=Whiten("pca", 9)).fit(np.eye(4), [0, 1, 0, 1])


@pytest.mark.parametrize("kind", ["pca", "zca", "standardize"])
def test_embedding_bins_do_not_separate_values_that_differ_by_rounding(backend, kind):
    """Integers, one the sum of two others: whitening makes equal values differ, and noise of 0."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (120, 3)).astype(np.float64)
    x = np.c_[x, x[:, 0] + x[:, 1]]
    settings = SHORT | {"numeric_embedding": "ple", "input_scaling": kind, "max_iter": 10}
    model = MLPRegressor(**settings).fit(x, x[:, 0] * x[:, 1])
    other = MLPRegressor(**settings).fit(backend.put(x), backend.put(x[:, 0] * x[:, 1]))
    order = rng.permutation(120)  # Sums of other orders are rounded differently.
    for rows in (slice(None), order):
        expected = model.predict(x[rows])
        predicted = backend.get(other.predict(backend.put(x[rows])))
        np.testing.assert_allclose(predicted, expected, atol=1e-9)
    (pieces,) = (entry for entry in model.other_weights_ if hasattr(entry, "per_unit"))
    assert np.max(pieces.per_unit) < 1e4


def test_no_sample_lies_on_an_embedding_bin_edge():
    x = np.r_[np.zeros(50), np.ones(30), np.arange(2.0, 22.0)][:, None]
    params = PLE(8, 2).init(1, np.random.RandomState(0).uniform, constant)
    start, per_unit, *_ = PLE(8, 2).adapt(params, x, xp=get_backend("numpy").xp)
    edges = np.append(start[0], start[0, -1] + 1.0 / per_unit[0, -1])
    assert np.all(np.diff(edges) >= 0.0)
    assert np.min(np.abs(x - edges)) > 0.06
    # One piece for each step between neighboring values that are quantiles.
    np.testing.assert_allclose(edges[[0, 1]], 1 / 16)
    assert edges[-1] == pytest.approx(21.0 + 21.0 / 16)
