"""The gradient by the inputs: finite differences, every backend, and what it is used for."""

import numpy as np
import pytest
from helpers import problem, small
from scipy import sparse

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.datasets import load_digits
from mlp_xp.nn.hidden import Blocks, Branch, Project
from mlp_xp.nn.layers import ACTIVATIONS
from mlp_xp.nn.losses import Quantile

X, y = problem()
STEP = 1e-6


def difference(model, X, target, direction):
    """Return the derivative of each sample's loss along a direction, by central differences."""
    losses = [
        np.asarray(
            [model.evaluate(x[None], t[None])["loss"] for x, t in zip(moved, target, strict=True)]
        )
        for moved in (X + STEP * direction, X - STEP * direction)
    ]
    return (losses[0] - losses[1]) / (2 * STEP)


def check(model, targets):
    model.fit(X, targets)
    rng = np.random.default_rng(1)
    some, target = X[:5], targets[:5]
    gradient = model.input_gradient(some, target)
    assert gradient.shape == some.shape
    for _ in range(3):
        direction = rng.standard_normal(some.shape)
        along = np.sum(gradient * direction, axis=1)
        expected = difference(model, some, target, direction)
        np.testing.assert_allclose(along, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "settings",
    [
        {"normalization": "batch", "dropout": 0.3, "residual": True},
        {"normalization": "layer", "input_scaling": "standardize"},
        {"input_scaling": "zca"},
        {"hidden_layer_sizes": (Project(6), Branch((9, 6)), Blocks((2, 3), (0,), 2))},
        {"hidden_layer_sizes": ()},
        {"loss": "focal"},
        {"label_smoothing": 0.1},
        {"output_activation": "logistic"},
        *({"activation": name} for name in ACTIVATIONS),
    ],
    ids=str,
)
def test_it_is_a_finite_difference(settings):
    check(small(**settings), y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_losses_and_targets_of_all_kinds():
    for loss in ("squared_error", "absolute_error", "huber", "quantile", "gaussian"):
        for targets in (X[:, :2], X[:, 0]):
            check(small(MLPRegressor, loss=loss), targets)
    check(small(MLPRegressor, loss=Quantile((0.2, 0.6))), X[:, :2])
    check(small(), y > 0)
    check(small(), np.eye(3, dtype=int)[y])


@pytest.mark.every_device
def test_every_backend_returns_the_same(backend):
    model = small(normalization="batch", input_scaling="zca", precision="float32").fit(X, y)
    expected = model.input_gradient(X, y)
    moved = model.to(backend.name, backend.device)
    with backend.scope():
        found = moved.input_gradient(backend.put(X, "float32"), y)
        assert backend.holds(found)
        np.testing.assert_allclose(backend.get(found), expected, rtol=1e-3, atol=1e-6)


def test_rows_in_batches_sparse_rows_and_integers(monkeypatch):
    model = small().fit(X, y)
    whole = model.input_gradient(X, y)
    np.testing.assert_allclose(model.input_gradient(sparse.csr_matrix(X), y), whole, rtol=1e-12)
    monkeypatch.setattr("mlp_xp.training.input_gradient._BATCH", 7)
    np.testing.assert_allclose(model.input_gradient(X, y), whole, rtol=1e-12)
    pixels = (50 * np.abs(X)).astype(np.uint8)
    np.testing.assert_array_equal(
        model.input_gradient(pixels, y), model.input_gradient(pixels.astype(float), y)
    )
    with pytest.raises(ValueError, match="`target` has classes not in"):
        model.input_gradient(X, y + 7)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.input_gradient(X, y[:3])


def test_it_finds_changes_that_a_classifier_mistakes():
    digits = load_digits()
    X, y = digits.x_train.astype(float), digits.y_train
    model = MLPClassifier(64, max_iter=20, learning_rate="cosine", random_state=0).fit(X, y)
    signs = np.sign(model.input_gradient(X, y))
    noise = np.random.default_rng(0).choice([-1.0, 1.0], X.shape)
    assert model.score(X + 2 * noise, y) > 0.7
    assert model.score(X + 2 * signs, y) < 0.3
