"""Files of skops: as large as the weights need, and opened with few types to trust."""

import zipfile

import numpy as np
import pytest

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.training.records import Record

pytestmark = pytest.mark.matrix


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_file_is_small_and_opens_as_the_same_model(kind, rng):
    io = pytest.importorskip("skops.io")
    X, y = rng.normal(size=(60, 64)).astype("float32"), rng.integers(0, 3, 60)
    settings = {"hidden_layer_sizes": (256, 256), "learning_rate": "cosine", "random_state": 0}
    size = {}
    for name, params in {
        "plain": {"solver": "sgd", "momentum": 0},
        "state": {"solver": "adam"},
        "epochs": {"max_iter": 101},
        "scores": {"max_iter": 5, "early_stopping": True},
    }.items():
        model = kind(**{"max_iter": 1} | settings | params).fit(X, y)
        content = io.dumps(model)
        types = io.get_untrusted_types(data=content)
        assert len(types) < 16
        assert all(name.startswith("mlp_xp.") for name in types)
        loaded, size[name] = io.loads(content, trusted=types), len(content)
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
        assert {type(record) for record in loaded.history_} == {Record}
        assert {type(loss) for loss in loaded.loss_curve_} == {np.float64}
        for curve in ("history_", "loss_curve_", "validation_scores_", "validation_loss_curve_"):
            assert getattr(loaded, curve) == getattr(model, curve)
    weights = sum(array.nbytes for array in (*model.coefs_, *model.intercepts_))
    assert size["plain"] < weights + 55_000  # The settings, as indented JSON.
    assert size["state"] < 3 * weights + 65_000
    assert size["epochs"] < size["state"] + 100 * 150
    assert len(io.dumps(model, compression=zipfile.ZIP_DEFLATED)) < 3 * weights + 5_000
    again = loaded.partial_fit(X, y)
    np.testing.assert_array_equal(again.coefs_[0], model.partial_fit(X, y).coefs_[0])
