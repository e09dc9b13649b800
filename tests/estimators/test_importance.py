"""`permutation_importance`: of groups of columns, with intervals."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import log_loss
from test_shapley import ARRAYS, LABELS, OF_TABLE, SHORT, SMALL, TABLE, X, Y

from mlp_xp import MLPClassifier, MLPEnsembleRegressor, MLPRegressor

GROUPS = {"both": ["x0", 2]}
MODELS = {case: ARRAYS[case] for case in ("classes", "two classes", "values", "two targets")}
MODELS |= {case: ARRAYS[case] for case in ("labels", "ensemble", "ensemble of classifiers")}
MODELS["several classes"] = MLPClassifier(**SHORT), np.stack([LABELS, (Y > 0) * 2], axis=1)


def mean_loss(model, x, y):
    """Return the mean loss by scikit-learn's formulas."""
    if not hasattr(model, "predict_proba"):
        return np.mean((y - model.predict(x)) ** 2)
    p = model.predict_proba(x)
    if y.ndim == 1:
        return log_loss(y, p)
    columns = zip(y.T, p if isinstance(p, list) else p.T, strict=True)
    return sum(log_loss(*column) for column in columns)


def orders_of(seed, n_repeats=5):
    """Return the permutations for a seed, seen by a model that predicts the row's number."""
    rows = np.arange(len(X), dtype=float)
    model = MLPRegressor.from_weights([np.ones((1, 1))], [np.zeros(1)])
    seen = []
    settings = {"n_repeats": n_repeats, "random_state": seed}
    model.permutation_importance(
        rows[:, None], rows, loss=lambda y, p: seen.append(p) or p, **settings
    )
    return np.rint(seen[1:]).astype(int)


@pytest.mark.parametrize("case", MODELS)
def test_importances_are_rises_of_the_mean_loss(case):
    model, y = MODELS[case]
    model = model.fit(X, y)
    found = model.permutation_importance(X, y, GROUPS, random_state=0)
    assert found.names == ["both", "x1", "x3"]
    before = mean_loss(model, X, y)
    orders = orders_of(0)
    assert len(orders) == 5
    for i, order in enumerate(orders):
        assert sorted(order) == [*range(len(X))]
        assert np.all(order != np.arange(len(X)))
        for group, columns in enumerate([[0, 2], [1], [3]]):
            x = X.copy()
            x[:, columns] = X[order][:, columns]
            rise = mean_loss(model, x, y) - before
            np.testing.assert_allclose(found.importances[group, i], rise, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.importances_mean, found.importances.mean(axis=1))
    np.testing.assert_allclose(found.importances_std, found.importances.std(axis=1))


def test_a_table_is_permuted_in_its_own_library():
    names = ["where", "size", "empty", "sold"]
    model = MLPRegressor(**OF_TABLE, input_scaling="standardize").fit(TABLE, Y)
    settings = {"groups": {"where": ["kind", "city"]}, "n_repeats": 2, "random_state": 0}
    found = model.permutation_importance(TABLE, Y, **settings)
    assert found.names == names
    assert np.all(found.importances[2] == 0)  # The column is empty.
    assert np.all(found.intervals[2] == 0)
    table = TABLE.copy()
    for order, importance in zip(orders_of(0, 2), found.importances[0], strict=True):
        table[["kind", "city"]] = TABLE[["kind", "city"]].to_numpy()[order]
        assert importance == pytest.approx(mean_loss(model, table, Y) - mean_loss(model, TABLE, Y))
    # Other rows' labels, another order of the columns, and a column as y.
    moved = TABLE[TABLE.columns[::-1]].set_index(np.arange(90)[::-1]).assign(y=Y)
    again = model.permutation_importance(moved, "y", **settings)
    assert again.names == names
    np.testing.assert_allclose(again.importances, found.importances)
    with pytest.warns(UserWarning, match="X has columns that the fit did not have") as seen:
        again = model.permutation_importance(TABLE.assign(more=1), Y, **settings)
    assert len(seen) == 1
    assert again.names == names
    if importlib.util.find_spec("polars"):
        import polars

        plain = TABLE.astype(object).where(TABLE.notna(), None).to_dict("list")
        again = model.permutation_importance(polars.DataFrame(plain), Y, **settings)
        np.testing.assert_allclose(again.importances, found.importances)


def test_a_frame_whose_columns_are_numbers_is_permuted_by_position():
    model = MLPClassifier(**SMALL).fit(X, LABELS)
    expected = model.permutation_importance(X, LABELS, GROUPS, random_state=0)
    groups = {"both": ["0", 2]}
    found = model.permutation_importance(pd.DataFrame(X), LABELS, groups, random_state=0)
    assert found.names == ["both", "1", "3"]
    np.testing.assert_array_equal(found.importances, expected.importances)


def test_every_form_of_a_matrix_has_the_same_importances(on, backend):
    model = MLPClassifier(**SMALL).fit(X, LABELS)
    settings = {"groups": GROUPS, "random_state": 0}
    expected = model.permutation_importance(X, LABELS, **settings)
    for x in (X.tolist(), sparse.csr_matrix(X), sparse.coo_array(X)):
        found = model.permutation_importance(x, LABELS.tolist(), **settings)
        np.testing.assert_allclose(found.importances, expected.importances, rtol=1e-9)
    single = SMALL | {"precision": "float32"}
    x = X.astype("float32")
    expected = MLPClassifier(**single).fit(x, LABELS).permutation_importance(x, LABELS, **settings)
    model = MLPClassifier(**single, **on).fit(backend.put(x), backend.put(LABELS))
    found = model.permutation_importance(backend.put(x), backend.put(LABELS), **settings)
    np.testing.assert_allclose(found.importances, expected.importances, atol=1e-4)
    np.testing.assert_allclose(found.intervals, expected.intervals, atol=1e-4)


@pytest.mark.parametrize("n_repeats", [1, 5])
def test_intervals_cover_the_importance_in_other_test_rows(n_repeats):
    # If values with variance 1 are replaced, the squared error of y = x0 + x1 + noise rises by 2.
    model = MLPRegressor.from_weights([np.ones((2, 1))], [np.zeros(1)])
    rng = np.random.default_rng(0)
    settings = {"n_repeats": n_repeats, "random_state": 0}
    is_in, errors, means = [], [], []
    for _ in range(200):
        x = rng.normal(size=(100, 2))
        y = x.sum(axis=1) + rng.normal(size=100)
        found = model.permutation_importance(x, y, **settings)
        is_in += ((found.intervals[:, 0] <= 2) & (found.intervals[:, 1] >= 2)).tolist()
        errors.append(found.standard_errors)
        means.append(found.importances_mean)
    assert abs(np.mean(means) - 2) < 0.05
    assert 0.88 < np.mean(is_in) < 0.97
    ratio = np.mean(errors) / np.std(means, axis=0).mean()
    assert 1.0 < ratio < (1.2 if n_repeats == 5 else 1.5)


def test_correlated_columns_are_important_together():
    rng = np.random.default_rng(0)
    first = rng.normal(size=500)
    x = np.stack([first, first + 0.01 * rng.normal(size=500), rng.normal(size=500)], axis=1)
    model = MLPRegressor.from_weights([np.asarray([[0.5], [0.5], [0.8]])], [np.zeros(1)])
    y = first + 0.8 * x[:, 2]
    alone = model.permutation_importance(x, y, random_state=0)
    pair = model.permutation_importance(x, y, {"pair": [0, 1]}, random_state=0)
    assert np.argmax(alone.importances_mean) == 2
    assert pair.names == ["pair", "x2"]
    assert pair.intervals[0, 0] > pair.intervals[1, 1]
    wide = model.permutation_importance(x, y, {"pair": [0, 1]}, random_state=0, level=0.99)
    assert np.all(wide.intervals[:, 0] < pair.intervals[:, 0])


def test_a_loss_is_called_with_predictions():
    model = MLPEnsembleRegressor(MLPRegressor(**SMALL), n_estimators=2, random_state=0).fit(X, Y)
    found = model.permutation_importance(
        X, Y, loss=lambda y, p: abs(y - p), n_repeats=1, random_state=0
    )
    x = X.copy()
    x[:, 1] = X[orders_of(0, 1)[0], 1]
    rise = np.mean(abs(Y - model.predict(x))) - np.mean(abs(Y - model.predict(X)))
    assert found.importances[1, 0] == pytest.approx(rise)
    # The loss decides what classes that the fit did not have mean.
    model = MLPClassifier(**SMALL).fit(X, LABELS)
    model.permutation_importance(X, LABELS + 1, loss=lambda y, p: p[np.arange(len(y)), y % 3])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"groups": {"a": []}}, r"`groups\['a'\]` has no columns: name some, or leave it out"),
        ({"groups": {"a": ["x9"]}}, r"`groups\['a'\]` has 'x9', which is no column of X"),
        ({"groups": {"a": [4]}}, r"has 4, which is no column of X.* X has 'x0', 'x1', 'x2', 'x3'"),
        ({"groups": {"a": [0], "b": ["x0"]}}, "each column once, got 'x0' in 'a' and in 'b'"),
        ({"groups": {"a": [0, 0]}}, "each column once, got 'x0' in 'a' and in 'a'"),
        ({"groups": {"x1": [0]}}, "named like columns outside them, 'x1': choose other names"),
        ({"groups": [["x0"]]}, r"must be a dict .* e.g. \{'both': \['x0', 'x1'\]\}, got"),
        ({"y": LABELS[:5]}, r"inconsistent numbers of samples: \[90, 5\]"),
        ({"y": LABELS + 1}, r"classes not in `self.classes_`: \[3\]"),
        ({"X": X[:1], "y": LABELS[:1]}, "needs at least 2 rows of X, got 1"),
        ({"X": lambda: None}, "needs all rows of X in memory: pass a data frame"),
        ({"n_repeats": 0}, "`n_repeats` must be an integer of at least 1, got 0"),
        ({"level": 90}, "`level` must be between 0 and 1, e.g. 0.9, got 90"),
        ({"loss": log_loss}, r"one number for each of 90 rows, got the shape \(\): do not average"),
    ],
)
def test_bad_input_says_what_to_type(given, message):
    model = MLPClassifier(**SMALL).fit(X, LABELS)
    with pytest.raises((TypeError, ValueError), match=message):
        model.permutation_importance(**{"X": X, "y": LABELS} | given)
