"""Files of skops: as large as the weights need, and opened with few types to trust."""

import zipfile

import numpy as np
import pytest

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.training.records import Record

pytestmark = pytest.mark.matrix

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 64)).astype("float32"), RNG.integers(0, 3, 60)


@pytest.fixture(scope="module")
def io():
    return pytest.importorskip("skops.io")


def fitted(kind=MLPClassifier, **params):
    params = {"max_iter": 1, "learning_rate": "cosine", "random_state": 0} | params
    return kind(hidden_layer_sizes=(256, 256), **params).fit(X, Y)


def weights(model):
    return sum(array.nbytes for array in (*model.coefs_, *model.intercepts_))


def loaded(io, content):
    types = io.get_untrusted_types(data=content)
    assert len(types) < 16
    assert all(name.startswith("mlp_xp.") for name in types)
    return io.loads(content, trusted=types)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_file_holds_weights_and_opens_with_the_same_predictions(kind, io):
    model = fitted(kind, solver="sgd", momentum=0)
    content = io.dumps(model)
    assert len(content) < weights(model) + 55_000  # The settings, as indented JSON.
    content = io.dumps(model, compression=zipfile.ZIP_DEFLATED)
    assert len(content) < weights(model) + 5_000
    np.testing.assert_array_equal(loaded(io, content).predict(X), model.predict(X))


def test_the_state_of_an_optimizer_and_a_history_are_all_that_it_adds(io):
    model = fitted()
    content = io.dumps(model)
    assert len(content) < 3 * weights(model) + 65_000
    assert len(io.dumps(fitted(max_iter=101))) - len(content) < 100 * 150
    again = loaded(io, content).partial_fit(X, Y)
    np.testing.assert_array_equal(again.coefs_[0], model.partial_fit(X, Y).coefs_[0])
    model = fitted(max_iter=5, early_stopping=True)
    again = loaded(io, io.dumps(model))
    assert all(type(record) is Record for record in again.history_)
    for name in ("history_", "loss_curve_", "validation_scores_", "validation_loss_curve_"):
        assert getattr(again, name) == getattr(model, name)
    assert [type(loss) for loss in again.loss_curve_] == [np.float64] * len(model.loss_curve_)
