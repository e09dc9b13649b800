"""`integrated_gradients`: against sums of finite differences along the line."""

import numpy as np
import pytest
from test_shapley import ARRAYS, OF_TABLE, TABLE, X, Y, as_outputs, predicted

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor


@pytest.fixture(autouse=True)
def without_shap(monkeypatch):
    monkeypatch.setattr("mlp_xp.estimators.explanations.explanation.has_shap", lambda: False)


def by_differences(model, rows, background, n_steps=400, step=1e-4):
    """Return the integrals of central differences, (rows, columns, outputs)."""
    values = []
    for row in rows:
        of_row = 0.0
        for other in background:
            middles = other + (np.arange(n_steps)[:, None] + 0.5) / n_steps * (row - other)
            slopes = []
            for j in range(len(row)):
                ahead, behind = middles.copy(), middles.copy()
                ahead[:, j] += step
                behind[:, j] -= step
                change = predicted(model, ahead) - predicted(model, behind)
                slopes.append(change.mean(axis=0) / (2 * step) * (row[j] - other[j]))
            of_row = of_row + np.asarray(slopes) / len(background)
        values.append(of_row)
    return np.asarray(values)


@pytest.mark.parametrize("case", ARRAYS)
def test_values_are_integrals_and_add_up(case):
    model, y = ARRAYS[case]
    model = model.fit(X, y)
    found = model.integrated_gradients(X[:2], background=X[50:53], tolerance=0.005)
    spread = np.std(predicted(model, X), axis=0).max()
    expected = by_differences(model, X[:2], X[50:53])
    np.testing.assert_allclose(as_outputs(found.values), expected, rtol=0, atol=0.01 * spread)
    total = found.base_values + found.values.sum(axis=1)
    of_model = predicted(model, X[:2])
    np.testing.assert_allclose(total.reshape(of_model.shape), of_model, rtol=0, atol=0.006 * spread)
    assert found.error_std is None


@pytest.mark.parametrize("embedding", [None, "ple"])
@pytest.mark.parametrize("clip", [False, True])
def test_columns_of_a_table_are_moved_as_a_whole(embedding, clip):
    settings = {"numeric_embedding": embedding, "input_scaling": "standardize"}
    settings |= {"target_scaling": "standardize", "clip_predictions": clip}
    model = MLPRegressor(**OF_TABLE | settings).fit(TABLE, Y)
    found = model.integrated_gradients(TABLE[:4], background=TABLE[20:40], tolerance=0.001)
    assert found.values.shape == (4, 5)
    assert np.all(found.values[:, 3] == 0)  # The column is empty.
    assert np.all(np.any(found.values[:, [0, 1, 2, 4]] != 0, axis=0))
    total = found.base_values + found.values.sum(axis=1)
    np.testing.assert_allclose(total, model.predict(TABLE[:4]), atol=0.001 * np.std(Y))
    same = model.integrated_gradients(TABLE[:1], background=TABLE[:1])
    np.testing.assert_allclose(same.values, 0.0, atol=1e-9)


def test_raw_outputs_of_a_linear_model_are_explained_exactly():
    model = MLPClassifier((), max_iter=20, learning_rate="cosine", random_state=0).fit(X, Y > 0)
    found = model.integrated_gradients(X[:3], background=X[:50], output="raw")
    expected = (X[:3] - X[:50].mean(axis=0)) * model.coefs_[0][:, 0]
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)
    ensemble = MLPEnsembleClassifier(model, 2, random_state=0).fit(X, Y > 0)
    with pytest.raises(ValueError, match=r"`output='raw'` is for a single network, since"):
        ensemble.integrated_gradients(X[:3], background=X[:50], output="raw")


def test_every_backend_has_the_same_values(on, backend):
    settings = {"hidden_layer_sizes": (8, 6), "max_iter": 3, "learning_rate": "cosine"}
    settings |= {"random_state": 0, "precision": "float32"}
    rows = X.astype("float32")
    expected = MLPRegressor(**settings).fit(rows, Y).integrated_gradients(rows[:3], rows[50:60])
    model = MLPRegressor(**settings, **on).fit(backend.put(rows), Y)
    found = model.integrated_gradients(backend.put(rows[:3]), backend.put(rows[50:60]))
    np.testing.assert_allclose(found.values, expected.values, atol=1e-3 * np.std(Y))


def test_a_background_with_other_columns_is_an_error():
    model = MLPRegressor(**OF_TABLE).fit(TABLE, Y)
    with pytest.raises(ValueError, match="`background` must have the columns of X"):
        model.integrated_gradients(TABLE[:2], background=TABLE[["size"]])
