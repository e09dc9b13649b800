"""`shap_values`: against a sum over all coalitions, which the test predicts one by one."""

import importlib.util
from itertools import product
from math import comb

import numpy as np
import pandas as pd
import pytest
from helpers import matrix, place_of
from sklearn.base import is_classifier

from mlp_xp import (
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    MLPTunedRegressor,
)

N = 90
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4))
Y = X[:, 0] * X[:, 1] + X[:, 2]
LABELS = np.digitize(Y, [-0.5, 0.5])
TABLE = pd.DataFrame(
    {
        "size": np.where(RNG.random(N) < 0.2, np.nan, X[:, 0]),
        "kind": RNG.choice(["a", "b", "c"], N),
        "city": RNG.choice([f"c{i}" for i in range(30)], N),
        "empty": np.full(N, np.nan),
        "sold": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 900, N), "D"),
    }
)
TABLE.loc[3, "kind"] = None
SHORT = {"max_iter": 8, "learning_rate": "cosine", "random_state": 0}
OF_TABLE = SHORT | {"categorical_features": "from_dtype", "missing_values": "impute"}
SMALL = SHORT | {"hidden_layer_sizes": (8, 6)}


@pytest.fixture(autouse=True)
def without_shap(monkeypatch):
    """Return the package's own object, whether or not shap is installed."""
    monkeypatch.setattr("mlp_xp.estimators.explanations.explanation.has_shap", lambda: False)


def predicted(model, rows):
    """Return what the values explain, (rows, outputs)."""
    found = model.predict_proba(rows) if is_classifier(model) else model.predict(rows)
    found = np.concatenate(found, axis=1) if isinstance(found, list) else found
    found = found.reshape((len(found), -1)).astype(float)
    return found[:, 1:] if is_classifier(model) and found.shape[1] == 2 else found


def brute_force(rows, background, predict):
    """Return Shapley values by the definition, (rows, columns, outputs)."""
    n, n_background = rows.shape[1], len(background)
    sets = np.asarray([*product([False, True], repeat=n)])
    is_in = np.repeat(sets, n_background, axis=0)
    tiled = np.tile(np.arange(n_background), len(sets))
    values = []
    for i in range(len(rows)):
        if isinstance(rows, pd.DataFrame):
            mixed = background.iloc[tiled].reset_index(drop=True)
            for name, mask in zip(mixed, is_in.T, strict=True):
                mixed[name] = mixed[name].mask(mask, rows[name].iloc[i])
        else:
            mixed = np.where(is_in, rows[i], background[tiled])
        v = predict(mixed).reshape((len(sets), n_background, -1)).mean(axis=1)
        of_row = np.zeros((n, v.shape[1]))
        for one, of_set in zip(sets, v, strict=True):
            size = one.sum()
            for j in range(n):
                sign, others = (1, size - 1) if one[j] else (-1, size)
                of_row[j] += sign * of_set / (n * comb(n - 1, others))
        values.append(of_row)
    return np.asarray(values)


def as_outputs(values):
    return values[..., None] if values.ndim == 2 else values


ARRAYS = {
    "classes": (MLPClassifier(**SMALL), LABELS),
    "two classes": (MLPClassifier(**SMALL), LABELS > 0),
    "values": (MLPRegressor(**SMALL, input_scaling="standardize"), Y),
    "two targets": (MLPRegressor(**SMALL), np.stack([Y, X[:, 3]], axis=1)),
    "labels": (MLPClassifier(**SMALL), np.stack([Y > 0, X[:, 3] > 0, X[:, 1] > 1], axis=1) * 1),
    "dropout, whitening": (MLPRegressor(**SMALL, input_scaling="pca", dropout=0.2), Y),
    "norm": (MLPRegressor(**SMALL, normalization="batch", residual=True), Y),
    "no hidden layer": (MLPRegressor(**SHORT | {"hidden_layer_sizes": ()}), Y),
    "members": (MLPRegressor(**SMALL, n_members=3), Y),
    "gaussian": (MLPRegressor(**SMALL, loss="gaussian"), Y),
    "quantiles": (MLPRegressor(**SMALL, loss="quantile"), Y),
    "ensemble": (MLPEnsembleRegressor(MLPRegressor(**SMALL), n_estimators=2, random_state=0), Y),
    "ensemble of classifiers": (
        MLPEnsembleClassifier(MLPClassifier(**SMALL), n_estimators=2, random_state=0),
        LABELS,
    ),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_values_are_those_of_the_definition(case):
    model, y = ARRAYS[case]
    model = model.fit(X, y)
    found = model.shap_values(X[:3], background=X[50:57])
    expected = brute_force(X[:3], X[50:57], lambda rows: predicted(model, rows))
    np.testing.assert_allclose(as_outputs(found.values), expected, rtol=0, atol=1e-6)
    total = found.base_values + found.values.sum(axis=1)
    of_model = predicted(model, X[:3])
    np.testing.assert_allclose(total.reshape(of_model.shape), of_model, rtol=0, atol=1e-9)
    assert found.error_std is None
    assert found.feature_names == ["x0", "x1", "x2", "x3"]
    np.testing.assert_array_equal(found.data, X[:3])


TABLES = {
    "one-hot": (MLPRegressor(**OF_TABLE), Y),
    "embeddings": (
        MLPClassifier(**OF_TABLE, max_one_hot=2, numeric_embedding="pbld"),
        LABELS,
    ),
    "ensemble": (
        MLPEnsembleRegressor(MLPRegressor(**OF_TABLE), n_estimators=2, random_state=0),
        Y,
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_column_of_a_table_is_replaced_as_a_whole(case):
    model, y = TABLES[case]
    model = model.fit(TABLE, y)
    found = model.shap_values(TABLE[2:5], background=TABLE[50:56])
    expected = brute_force(TABLE[2:5], TABLE[50:56], lambda rows: predicted(model, rows))
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(as_outputs(found.values), expected, rtol=0, atol=1e-5 * scale)
    assert found.feature_names == list(TABLE.columns)
    assert not found.values[:, 3].any()  # The empty column is no input.
    assert found.data.shape == (3, 5)
    assert found.data[0, 1] == TABLE["kind"][2]
    renamed = model.shap_values(TABLE[TABLE.columns[::-1]][2:5], background=TABLE[50:56])
    np.testing.assert_array_equal(renamed.values, found.values)


@pytest.mark.parametrize("kind", ["ensemble", *matrix("tuned")])
def test_networks_count_by_their_weights(kind):
    model = MLPEnsembleRegressor(MLPRegressor(**OF_TABLE), n_estimators=2, random_state=0)
    if kind == "tuned":
        model = MLPTunedRegressor(n_configurations=2, n_folds=2, random_state=0)
    model = model.fit(TABLE, Y)
    weights = np.linspace(1, 3, len(model.estimators_))
    model.weights_ = weights / weights.sum()
    found = model.shap_values(TABLE[:3], background=TABLE[50:60])
    total = found.base_values + found.values.sum(axis=1)
    np.testing.assert_allclose(total, model.predict(TABLE[:3]), rtol=1e-6)


def test_several_targets_with_classes_have_an_explanation_each():
    y = np.stack([LABELS, Y > 0], axis=1).astype(int)
    model = MLPClassifier(**SMALL)
    model = model.fit(X, y)
    found = model.shap_values(X[:3], background=X[50:57])
    assert [len(one.output_names) for one in found] == [3, 2]
    for one, p in zip(found, model.predict_proba(X[:3]), strict=True):
        np.testing.assert_allclose(one.base_values + one.values.sum(axis=1), p, atol=1e-6)


def test_raw_outputs_are_log_odds():
    model = MLPClassifier(**SMALL).fit(X, LABELS > 0)
    found = model.shap_values(X[:4], background=X[50:60], output="raw")
    p = model.predict_proba(X[:4])[:, 1]
    total = found.base_values + found.values.sum(axis=1)
    np.testing.assert_allclose(total, np.log(p / (1 - p)), rtol=1e-5)
    assert found.output_names == "True"


@pytest.mark.parametrize("backend", ["numpy", "array_api_strict", *matrix("torch:cpu", "jax:cpu")])
def test_backends_agree(backend):
    model = MLPRegressor(**SMALL).fit(X, Y)
    expected = model.shap_values(X[:3], background=X[50:57])
    found = model.set_params(**place_of(backend)).shap_values(X[:3], background=X[50:57])
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["values", "two classes", "members", "ensemble"])
@pytest.mark.parametrize("exact", [True, False])
def test_long_explanations_in_machine_code_have_the_same_values(case, exact, monkeypatch):
    pytest.importorskip("numba")
    model, y = ARRAYS[case]
    model = model.fit(X, y)
    settings = {"background": X[50:57], "exact": exact, "tolerance": 0.1, "random_state": 0}
    expected = model.shap_values(X[:20], **settings)
    monkeypatch.setattr("mlp_xp.backends._numpy.backend._LONG", 1)
    found = model.shap_values(X[:20], **settings)
    scale = np.max(np.abs(expected.values))
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-6 * scale)


def test_sampled_values_have_standard_errors_that_cover_the_exact_ones():
    model = MLPRegressor(**SMALL, activation="tanh").fit(X, Y)
    exact = model.shap_values(X[:12], background=X[50:60])
    settings = {"background": X[50:60], "exact": False, "random_state": 0}
    found = model.shap_values(X[:12], **settings, tolerance=0.004)
    spread = np.std(np.concatenate([model.predict(X[:12]), model.predict(X[50:60])]))
    assert np.max(found.error_std) <= 0.004 * spread * (1 + 1e-6)
    score = (found.values - exact.values) / np.maximum(found.error_std, 1e-12)
    assert 0.7 < np.sqrt(np.mean(np.square(score))) < 1.3
    total = found.base_values + found.values.sum(axis=1)
    np.testing.assert_allclose(total, model.predict(X[:12]), rtol=0, atol=1e-9)
    again = model.shap_values(X[:12], **settings, tolerance=0.004)
    np.testing.assert_array_equal(again.values, found.values)


def test_more_than_15_columns_are_sampled():
    wide = RNG.normal(size=(60, 16))
    model = MLPRegressor(**SMALL).fit(wide, wide[:, 0] * wide[:, 15])
    found = model.shap_values(wide[:2], background=10, tolerance=0.05, random_state=0)
    assert found.error_std.shape == found.values.shape == (2, 16)
    with pytest.raises(ValueError, match="at most 15 columns, got 16: their 65,536 coalitions"):
        model.shap_values(wide[:2], exact=True)


def test_a_number_of_background_rows_draws_rows_of_x():
    model = MLPRegressor(**SMALL).fit(X, Y)
    first, second = (model.shap_values(X, 20, random_state=seed) for seed in (0, 1))
    assert np.ptp(first.base_values) == 0
    assert first.base_values[0] != second.base_values[0]
    few = model.shap_values(X[:8])  # X has fewer rows than the default: all are used.
    np.testing.assert_allclose(few.base_values, model.predict(X[:8]).mean(), rtol=1e-12)


def test_bad_input():
    model = MLPRegressor(**SMALL).fit(X, Y)
    cases = {
        "`background` must have the columns of X: X has 3 features": {"background": X[:, :3]},
        "`background` must be rows or a number of at least 1, got 0": {"background": 0},
        "`output` must be 'auto' for a regressor": {"output": "raw"},
        "`tolerance` must be a number above 0, got 0": {"tolerance": 0},
        "`exact` must be True, False or None, got 'no'": {"exact": "no"},
    }
    for message, settings in cases.items():
        with pytest.raises(ValueError, match=message):
            model.shap_values(X[:4], **settings)
    with pytest.raises(ValueError, match="X has only one: pass rows to compare with"):
        model.shap_values(X[:1])
    table = MLPRegressor(**OF_TABLE).fit(TABLE, Y)
    with pytest.raises(ValueError, match=r"`background` must have the columns of X: .*kind"):
        table.shap_values(TABLE[:4], background=TABLE.drop(columns="kind"))


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore")  # shap's own warnings
@pytest.mark.skipif(not importlib.util.find_spec("shap"), reason="needs shap")
def test_shap_explains_alike_and_plots_the_result(monkeypatch):
    monkeypatch.undo()
    model = MLPClassifier(**SMALL).fit(X, LABELS)
    found = model.shap_values(X[:4], background=X[50:60])
    import shap

    assert isinstance(found, shap.Explanation)
    explainer = shap.explainers.Exact(model.predict_proba, shap.maskers.Independent(X[50:60]))
    expected = explainer(X[:4])
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.base_values, expected.base_values, rtol=0, atol=1e-6)
    axes = shap.plots.beeswarm(found[..., 0], show=False)
    assert {label.get_text() for label in axes.get_yticklabels()} >= {"x0", "x1", "x2", "x3"}
