"""Tables: numbers, categories, dates and holes, from the frame to the saved model."""

import pickle

import numpy as np
import pandas
import polars
from helpers import case, small
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict

from mlp_xp import MLPEnsembleClassifier, MLPRegressor
from mlp_xp.model_selection import GridSearchCV
from mlp_xp.model_selection import cross_val_predict as predict_folds
from mlp_xp.saving import load_model, save_model

N = 90


def table(n=N, seed=0):
    """Return a frame with a column of each kind, with holes, and labels."""
    rng = np.random.default_rng(seed)
    age, city = rng.integers(18, 80, n).astype(float), rng.choice(["Bern", "Oslo", "Rome"], n)
    y = np.where((age > 50) ^ (city == "Rome"), "yes", "no")
    days = pandas.to_timedelta(rng.integers(0, 900, n) * 3600 * 7, unit="s")
    frame = pandas.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.1, np.nan, age),
            "city": np.where(rng.random(n) < 0.1, None, city.astype(object)),
            "member": rng.random(n) < 0.5,
            "size": pandas.Categorical(rng.choice(["S", "L"], n)),
            "since": pandas.Timestamp("2020-01-01") + days,
            "visits": pandas.array(rng.integers(0, 9, n), dtype="Int64"),
        }
    )
    frame.loc[::9, "visits"] = pandas.NA
    return frame, y


def tabular(estimator=None, /, **settings):
    kind = {"categorical_features": "from_dtype", "missing_values": "impute"}
    arguments = (estimator,) if estimator else ()
    return small(*arguments, **(kind | {"input_scaling": "robust"} | settings))


X, y = table()
NAMES = (
    *("age", "since: year", "since: day of year", "since: weekday", "since: second of day"),
    *("visits", "age is missing", "visits is missing"),
    *("city=Bern", "city=Oslo", "city=Rome", "city is missing", "member=1", "size=S"),
)


def test_a_frame_goes_through_everything(on, tmp_path):
    model = tabular(**on, early_stopping=True).fit(X, y)
    assert model.columns_.input_names == NAMES
    assert list(model.feature_names_in_) == list(X)
    assert (model.n_features_in_, model.coefs_[0].shape[0]) == (6, len(NAMES))
    expected = model.predict_proba(X)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.get_params()["categorical_features"] == "from_dtype"
    for other in (pickle.loads(pickle.dumps(model)), loaded):  # noqa: S301
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        np.testing.assert_array_equal(other.feature_names_in_, model.feature_names_in_)
        other.partial_fit(X[:20], y[:20])
        assert other.columns_.input_names == NAMES
    assert model.evaluate(X, y)["accuracy"] == model.score(X, y)
    by_column = model.columns_.by_column(model.input_gradient(X, y))
    assert by_column.shape == X.shape
    held = tabular(**on).fit(X, y, X_val=X[:30], y_val=y[:30])
    assert held.validation_scores_[-1] == held.score(X[:30], y[:30])


def test_each_fold_learns_its_own_columns(on):
    """A city that only the last rows have is unknown to the folds without them."""
    frame = X.assign(city=["Bern", "Oslo"] * 40 + ["Rome"] * 10)
    model = tabular(**on, max_iter=2)
    expected = cross_val_predict(clone(model), frame, y, cv=2, method="predict_proba")
    for many in (predict_folds(model, frame, y, cv=2, method="predict_proba"),):
        np.testing.assert_allclose(many, expected, atol=1e-10)
    search = GridSearchCV(model, {"input_scaling": ["robust", "quantile"]}, cv=2).fit(frame, y)
    assert search.best_estimator_.columns_.names == list(X)
    ensemble = MLPEnsembleClassifier(model, 2, random_state=0).fit(frame, y)
    assert ensemble.predict_proba(frame).shape == (N, 2)
    assert (ensemble.n_features_in_, list(ensemble.feature_names_in_)) == (6, list(X))


def test_what_is_the_same_in_other_libraries():
    model = tabular().fit(X, y)
    expected = model.predict_proba(X)
    rows = X.astype(object).where(X.notna(), None)
    frame = polars.from_dicts(rows.to_dict("records"), infer_schema_length=None)
    categorical = frame.with_columns(polars.col("size").cast(polars.Categorical))
    for same in (frame, categorical, rows, X.assign(age=X["age"].astype("Float32"))):
        np.testing.assert_allclose(model.predict_proba(same), expected, atol=1e-6)
    again = tabular().fit(frame, y)
    np.testing.assert_array_equal(again.predict_proba(frame), expected)
    matrix = rows.drop(columns="since").to_numpy()
    for chosen in ("from_dtype", [1, 2, 3], [False, True, True, True, False]):
        with case(chosen):
            named = tabular(categorical_features=chosen).fit(matrix, y)
            assert named.columns_.input_names[-1] == "x3=S"
            assert not hasattr(named, "feature_names_in_")
            np.testing.assert_array_equal(named.predict(matrix.tolist()), named.predict(matrix))
    codes = tabular(categorical_features=["age"]).fit(X[["age", "visits"]], y)
    assert "age=18" in codes.columns_.input_names


def test_unknown_rare_and_missing_categories():
    city = ["Oslo"] * 50 + ["Bern"] * 48 + ["Rome"] * 2 + [None] * 400
    model = tabular(MLPRegressor).fit(pandas.DataFrame({"city": city}), np.arange(500.0))
    names = ("city is another", "city=Bern", "city=Oslo", "city is missing")
    assert model.columns_.input_names == names

    def predict(*values):
        return model.predict(pandas.DataFrame({"city": values}))

    rare, unknown = predict("Rome", "Lima")
    assert rare == unknown
    assert len({*predict("Rome", "Bern", "Oslo", None)}) == 4
