"""Tables: numbers, categories, dates and holes, from the frame to the saved model."""

import datetime
import pickle
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from helpers import case, pickled_and_saved, small
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler

from mlp_xp import MLPEnsembleClassifier, MLPRegressor
from mlp_xp.callbacks import Checkpoint
from mlp_xp.model_selection import GridSearchCV
from mlp_xp.model_selection import cross_val_predict as predict_folds
from mlp_xp.nn.entries import entries
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


def test_data_frame_works_in_fit_predict_pickle_and_save(on, tmp_path):
    model = tabular(**on, early_stopping=True).fit(X, y)
    assert model.columns_.input_names == NAMES
    assert list(model.feature_names_in_) == list(X)
    assert (model.n_features_in_, model.coefs_[0].shape[0]) == (6, len(NAMES))
    expected = model.predict_proba(X)
    for other in pickled_and_saved(model, tmp_path):
        assert other.get_params()["categorical_features"] == "from_dtype"
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        np.testing.assert_array_equal(other.feature_names_in_, model.feature_names_in_)
        other.partial_fit(X[:20], y[:20])
        assert other.columns_.input_names == NAMES
    assert model.evaluate(X, y)["accuracy"] == model.score(X, y)
    by_column = model.columns_.by_column(model.input_gradient(X, y))
    assert by_column.shape == X.shape
    held = tabular(**on).fit(X, y, X_val=X[:30], y_val=y[:30])
    assert held.validation_scores_[-1] == held.score(X[:30], y[:30])


def test_a_fit_on_a_table_can_be_resumed(tmp_path):
    settings = {"max_iter": 6, "dropout": 0.2}
    expected = tabular(**settings).fit(X, y).predict_proba(X)

    def stop(model, record):
        if record.epoch == 3:
            raise KeyError

    keep = Checkpoint(tmp_path, every=1)
    with pytest.raises(KeyError):
        tabular(**settings, callbacks=[keep, SimpleNamespace(on_epoch_end=stop)]).fit(X, y)
    resumed = tabular(**settings).fit(X, y, resume=tmp_path)
    np.testing.assert_array_equal(resumed.predict_proba(X), expected)
    with pytest.raises(ValueError, match="columns"):
        tabular(**settings).fit(X.replace({"city": {"Rome": "Roma"}}), y, resume=tmp_path)


def test_each_fold_learns_its_own_column_encoding(on, tmp_path):
    """Categories of the last rows are unknown in folds without these rows."""
    frame = X.assign(city=["Bern", "Oslo"] * 40 + ["Rome"] * 10, member=[False] * 89 + [True])
    frame["visits"] = [np.nan] * 80 + [1.0] * 10
    model = tabular(**on, max_iter=2)
    expected = cross_val_predict(clone(model), frame, y, cv=2, method="predict_proba")
    for many in (predict_folds(model, frame, y, cv=2, method="predict_proba"),):
        np.testing.assert_allclose(many, expected, atol=1e-10)
    search = GridSearchCV(model, {"input_scaling": ["robust", "quantile"]}, cv=2).fit(frame, y)
    assert search.best_estimator_.columns_.names == list(X)
    settings = [{"max_one_hot": 2}, {}]
    for each in (settings, None):  # Separate columns, or the same.
        ensemble = MLPEnsembleClassifier(model, 2, settings=each, random_state=0).fit(frame, y)
        save_model(ensemble, tmp_path)
        found, networks = load_model(tmp_path).predict_proba(frame), ensemble.estimators_
        mean = sum(network.predict_proba(frame) for network in networks) / 2
        np.testing.assert_allclose(found, mean, atol=1e-12)
    assert (ensemble.n_features_in_, list(ensemble.feature_names_in_)) == (6, list(X))


def test_an_empty_column_is_ignored_and_later_fits_keep_the_columns(tmp_path):
    frame = X.assign(age=np.nan, size=None)
    model = tabular().fit(frame, y)
    kept = tuple(name for name in NAMES if not name.startswith(("age", "size")))
    assert model.columns_.input_names == kept
    for other in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(frame))
    with pytest.raises(ValueError, match=r"X\['age'\] is missing \(NaN\) in row 0: .*'impute'"):
        tabular(missing_values="error").fit(X.assign(age=np.nan, visits=1), y)
    for changed in ({"max_one_hot": 2}, {"categorical_features": ["city", "member"]}):
        fitted = clone(model).fit(X, y)
        for other in (*pickled_and_saved(fitted, tmp_path), fitted):
            with pytest.raises(ValueError, match="settings now say "):
                other.set_params(warm_start=True, **changed).fit(X, y)


def test_equivalent_column_types_give_the_same_predictions(tmp_path):
    model = tabular().fit(X, y)
    expected = model.predict_proba(X)
    rows = X.astype(object).where(X.notna(), None)
    periods = X.assign(since=X["since"].dt.to_period("s"))
    for same in (rows, X.assign(age=X["age"].astype("Float32")), periods):
        np.testing.assert_allclose(model.predict_proba(same), expected, atol=1e-6)
    matrix = rows.drop(columns="since").to_numpy()
    for chosen in ("from_dtype", [1, 2, 3], ["x1", 2, 3], [False, True, True, True, False]):
        with case(chosen):
            named = tabular(categorical_features=chosen).fit(matrix, y)
            assert named.columns_.input_names[-1] == "x3=S"
            assert not hasattr(named, "feature_names_in_")
            np.testing.assert_array_equal(named.predict(matrix.tolist()), named.predict(matrix))
    check_age(X.columns[:1], tmp_path)


def check_age(chosen, folder):
    codes = tabular(categorical_features=chosen, max_one_hot=np.inf)
    codes.fit(X[["age", "visits"]], y)
    assert "age=18" in codes.columns_.input_names
    save_model(codes, folder)
    assert load_model(folder).categorical_features == ["age"]


def test_datetime_objects_are_read_in_their_time_zone():
    noon = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
    same = noon.astimezone(datetime.timezone(datetime.timedelta(hours=13)))  # May 2, at 1:00.
    found = []
    for dates in ([noon, same], [noon.replace(tzinfo=None), same.replace(tzinfo=None)]):
        frame = pandas.DataFrame({"since": np.asarray(dates * 45 + [None], dtype=object)})
        model = tabular(max_iter=1).fit(frame.astype(object), [0, 1] * 45 + [0])
        assert model.columns_.input_names[3:] == ("since: second of day", "since is missing")
        found.append(model.columns_.transform(frame.astype(object)))
    np.testing.assert_array_equal(*found)
    assert len(np.unique(found[0], axis=0)) == 3


@pytest.mark.matrix
def test_polars_frames_give_the_same_predictions_as_pandas(tmp_path):
    polars = pytest.importorskip("polars")
    records = X.astype(object).where(X.notna(), None).to_dict("records")
    frame = polars.from_dicts(records, infer_schema_length=None)
    model = tabular().fit(frame, y)
    np.testing.assert_array_equal(model.predict_proba(frame), tabular().fit(X, y).predict_proba(X))
    for name, dtype in (("size", polars.Categorical), ("visits", polars.Int128)):
        other = frame.with_columns(polars.col(name).cast(dtype))
        np.testing.assert_array_equal(model.predict(other), model.predict(frame))
    check_age(polars.Series(["age"]), tmp_path)
    with pytest.raises(ValueError, match=r"X\['a'\] has cells that are not scalars"):
        tabular().fit(polars.DataFrame({"a": [{"b": 1}] * N}), y)
    with pytest.raises(ValueError, match=r"LazyFrame, which has no rows yet: pass X.collect\(\)"):
        tabular().fit(polars.LazyFrame({"a": [1, 2]}), y)


def test_unknown_rare_and_missing_categories_have_their_own_inputs():
    city = ["Oslo"] * 50 + ["Bern"] * 48 + ["Rome"] * 2 + [None] * 400
    model = tabular(MLPRegressor).fit(pandas.DataFrame({"city": city}), np.arange(500.0))
    names = ("city is another", "city=Bern", "city=Oslo", "city is missing")
    assert model.columns_.input_names == names

    def predict(*values):
        return model.predict(pandas.DataFrame({"city": values}))

    rare, unknown = predict("Rome", "Lima")
    assert rare == unknown
    assert len({*predict("Rome", "Bern", "Oslo", None)}) == 4
    rare = pandas.DataFrame({"id": [*map(float, range(100)), *[None] * 400]})
    model = tabular(MLPRegressor, categorical_features=["id"]).fit(rare, np.arange(500.0))
    assert model.columns_.input_names == ("id is another", "id is missing")


def test_columns_with_many_categories_are_embedded(on, tmp_path):
    frame = X[["age"]].assign(street=[f"{i % 12}. street" for i in range(N)], city=X["city"])
    model = tabular(**on, embedding_dim=np.int64(3)).fit(frame, y)
    assert model.columns_.input_names[:2] == ("age", "age is missing")
    assert model.columns_.input_names[-1] == "street"
    assert model.coefs_[0].shape[0] == len(model.columns_.input_names) + 2
    save_model(model, tmp_path)
    expected = model.predict_proba(frame)
    np.testing.assert_array_equal(load_model(tmp_path).predict_proba(frame), expected)
    streets = ["1. street"], ["new"], [None]
    some = [model.predict_proba(frame[:1].assign(street=street)) for street in streets]
    assert len(np.unique(np.asarray(some), axis=0)) == 2
    embeddings = next(entry for entry in entries(model._state.params) if hasattr(entry, "table"))
    used = np.any(np.asarray(embeddings.table) != 0.0, axis=1)
    assert [*np.flatnonzero(~used)] == [0, 13]  # No row has unknown or missing categories.
    with pytest.raises(ValueError, match=r"`values` must have 7 inputs .* got 9: pass"):
        model.columns_.by_column(np.asarray(model.coefs_[0]).T)
    with pytest.raises(ValueError, match=r"embedding_dim=2.*: fit with warm_start=False"):
        model.set_params(embedding_dim=2).partial_fit(frame, y)
    with pytest.raises(ValueError, match=r"mixes all inputs.* set max_one_hot=float\('inf'\)"):
        tabular(input_scaling="zca").fit(frame, y)
    whitened = tabular(input_scaling="zca", max_one_hot=np.inf).fit(frame, y)
    save_model(whitened, tmp_path)
    np.testing.assert_array_equal(load_model(tmp_path).predict(frame), whitened.predict(frame))


UNFIT = [  # Wrong columns in a fit, and what the error says.
    (X[["age"]].assign(age=np.nan), "X has no value in any column: check how it was loaded"),
    (
        X.assign(city=pandas.Categorical([2**53 + 1, 2**53] * 45)),
        r"X\['city'\] has the category 9007199254740993, .* column.astype\(str\)",
    ),
    (
        pandas.DataFrame({key: [f"id {i}" for i in range(200)] for key in ("id", "name")}),
        r"X has no column that can be an input, since its text .*: X\['id'\], X\['name'\]\.",
    ),
    (X.assign(age=np.inf), r"X\['age'\] has infinity in row 0: replace it"),
    (X.assign(city=[["a"]] * N), r"X\['city'\] has cells that are not scalars, e.g. \['a'\]: drop"),
    (X.assign(city=[1, "b"] * 45), r"X\['city'\] has text and numbers: convert it to one of them"),
    (
        X.assign(city=[*map(str, range(89)), "?!"]),
        r"X\['city'\] has '\?!' among its numbers: convert them, e.g. by pandas.to_numeric",
    ),
    (X.assign(city=[f"1,{i}" for i in range(N)]), r"if commas are decimal points, .*, or"),
    (
        X.assign(city=[*pandas.date_range("2026", periods=N - 1).astype(str), "soon"]),
        r"X\['city'\] has 'soon' among its dates: .*to_datetime",
    ),
    (X[:0], r"Found array with 0 sample\(s\)"),
    (X[["age", "age"]], r"duplicate columns, \['age'\]: .*X.loc\[:, ~X.columns.duplicated"),
    (X["age"], r"Expected 2D array.*X.to_frame\(\) for a column.*, or X.to_frame\(\).T for a row"),
    ([{"age": 3}] * N, r"Expected 2D array.*pandas.DataFrame\(X\) for a list of dicts"),
]
UNLIKE = [  # Tables that a prediction rejects.
    (X.drop(columns="age"), r"X lacks columns of the fit, 'age': add"),
    (X.assign(age=X["city"]), r"X\['age'\] has categories, but had numbers during fit: convert"),
    (X.assign(city=X["age"]), r"X\['city'\] has numbers, but had categories during fit"),
    (X.assign(since="today"), r"X\['since'\] has categories, but had dates .* such as 'today'"),
]


def test_errors_about_unusable_columns_say_what_to_type():
    model = tabular().fit(X, y)
    before = pickle.dumps(model)
    for frame, message in UNFIT:
        with case(message), pytest.raises(ValueError, match=message):
            model.fit(frame, y)
    for frame, message in UNLIKE:
        with case(message), pytest.raises(ValueError, match=message):
            model.predict(frame)
        with case(message), pytest.raises(ValueError, match=message):
            model.fit(X, y, X_val=frame, y_val=y)
    assert pickle.dumps(model) == before
    codes = X[["age"]].assign(city=[f"0{i // 2}" for i in range(N)])  # Such as ZIP codes.
    assert tabular(categorical_features=["city"]).fit(codes, y).columns_.columns[1].is_text
    with pytest.raises(ValueError, match=r"X\['age'\] has -1e\+200, .*input_scaling='robust'"):
        tabular(input_scaling="standardize").fit(X.assign(age=np.linspace(-1e200, 1, N)), y)
    for setting, width in (("standardize", 1e-170), ("robust", 1e-320)):
        message = rf"X\['age'\] varies by only .*e-\d+, .*input_scaling='{setting}': multiply it"
        with pytest.raises(ValueError, match=message):
            tabular(input_scaling=setting).fit(X.assign(age=np.linspace(0.0, width, N)), y)
    for settings, message in (
        ({"categorical_features": ["town"]}, r"has 'town', but X has 6 columns: 'age', 'city'"),
        ({"categorical_features": [1, "size", "since"]}, r"X\['since'\] has dates: leave it out"),
        ({"categorical_features": [True]}, "mask of shape .* pass a mask with one entry per"),
        (
            {"categorical_features": None},
            r"X\['city'\] has categories; .*: set categorical_features",
        ),
        ({"missing_values": "error"}, r"X\['age'\] is missing \(NaN\) .*missing_values='impute'"),
    ):
        with case(settings), pytest.raises(ValueError, match=message):
            tabular(**settings).fit(X, y)
    filled = tabular(missing_values="error").fit(X.dropna(), y[X.notna().all(axis=1)])
    with pytest.raises(ValueError, match="set missing_values='impute'"):
        filled.predict(X)
    assert filled.set_params(missing_values="impute").predict(X).shape == y.shape


def test_encoded_inputs_match_scikit_learns_transformers():
    frame, targets = table(300, seed=1)
    frame = frame[["age", "visits", "city"]].astype({"visits": float})
    most = int(frame[["age", "visits"]].count().max())
    quantiles = QuantileTransformer(n_quantiles=most, output_distribution="normal")
    for setting, scaler in (
        ("standardize", StandardScaler()),
        ("quantile", quantiles),
        (None, "passthrough"),
    ):
        numbers = make_pipeline(scaler, SimpleImputer(strategy="median", add_indicator=True))
        texts = OneHotEncoder(handle_unknown="ignore")
        both = make_column_transformer((numbers, ["age", "visits"]), (texts, ["city"]))
        model = tabular(input_scaling=setting, max_iter=1).fit(frame, targets)
        # The median of two numbers is scaled otherwise than they are.
        rows = frame.dropna(subset=["age", "visits"]) if setting == "quantile" else frame
        fitted = both.fit(frame).named_transformers_["pipeline"][0]
        if setting == "quantile":  # Its rounding places equal values beside their quantile.
            fitted.quantiles_ = fitted.quantiles_.round(9)
        expected = both.transform(rows)
        with case(setting):
            np.testing.assert_allclose(model.columns_.transform(rows), expected, atol=1e-12)
