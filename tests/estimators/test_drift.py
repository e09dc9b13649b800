"""`check`: new data against the distributions that a fit has learned from a table."""

import re
from itertools import pairwise

import numpy as np
import pandas
import pytest
from helpers import pickled_and_saved, small
from sklearn.exceptions import NotFittedError

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPRegressor
from mlp_xp.estimators.tables.columns import decode_columns
from mlp_xp.estimators.tables.drift import stability_index

N = 1000


def table(n=N, seed=0):
    rng = np.random.default_rng(seed)
    city = rng.choice(["Bern", "Oslo", "Rome"], n, p=[0.2, 0.3, 0.5]).astype(object)
    city[rng.random(n) < 0.1] = None
    days = pandas.to_timedelta(rng.integers(0, 1000, n), unit="D")
    return pandas.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(18, 80, n)),
            "city": city,
            "since": pandas.Timestamp("2020-01-01") + days,
            "member": rng.random(n) < 0.3,
            "size": rng.normal(size=n),
        }
    )


X = table()
Y = np.arange(N) % 2
SETTINGS = {"categorical_features": "from_dtype", "missing_values": "impute"}


@pytest.fixture(scope="module")
def model():
    return small(**SETTINGS).fit(X, Y)


def column(check, name):
    return next(found for found in check.columns if found.name == name)


def test_the_fit_keeps_the_distribution_of_each_column(model):
    age, city, since, member, size = model.columns_.distributions
    there = X["age"].dropna()
    assert (age.n_rows, age.n_missing) == (N, N - len(there))
    assert (age.low, age.high) == (there.min(), there.max())
    ends = [-np.inf, *age.edges, np.inf]
    expected = [int(((there > low) & (there <= high)).sum()) for low, high in pairwise(ends)]
    assert list(age.counts) == expected
    assert all(0.05 * N < count < 0.15 * N for count in size.counts)
    assert len(size.counts) == 10
    counts = X["city"].value_counts()
    assert city.categories == tuple(counts.index)
    assert city.counts == (*counts, 0, 0)
    assert city.fraction_missing == X["city"].isna().mean()
    assert member.categories == (0.0, 1.0)
    days = (X["since"] - pandas.Timestamp("1970-01-01")).dt.days
    assert (since.low, since.high) == (days.min(), days.max())


def test_an_edge_and_its_equal_values_are_in_one_bin():
    values = np.repeat([0.0, 1.0, 2.0], [700, 200, 100])
    model = small(**SETTINGS).fit(values[:, None], np.arange(N) % 2)
    (found,) = model.columns_.distributions
    assert (found.edges, found.counts) == ((0.0, 1.0), (700, 200, 100))
    constant = small(**SETTINGS).fit(np.c_[values, np.ones(N)], np.arange(N) % 2)
    assert constant.columns_.distributions[1].counts == (N,)


def test_rare_categories_are_counted_without_their_names():
    codes = np.asarray(["a"] * 950 + ["b"] * 40 + [f"rare {i}" for i in range(10)], dtype=object)
    model = small(**SETTINGS).fit(pandas.DataFrame({"code": codes, "x": np.arange(N)}), Y)
    known = model.columns_.distributions[0]
    assert (known.categories, known.counts) == (("a", "b"), (950, 40, 0, 10))
    check = model.check(pandas.DataFrame({"code": ["rare 1"] * 20 + ["a"] * 980, "x": range(N)}))
    found = column(check, "code")
    assert (found.fraction_unknown, found.fraction_unknown_in_fit) == (0.02, 0.01)
    assert "unknown" not in found.exceeded


def test_frequent_categories_are_counted_and_the_others_together():
    codes = np.repeat([f"{i:02}" for i in range(40)], 25).astype(object)
    codes[:200] = "00"
    frame = pandas.DataFrame({"code": codes, "x": np.arange(N)})
    known = small(**SETTINGS).fit(frame, Y).columns_.distributions[0]
    assert len(known.categories) == 20
    assert known.categories[0] == "00"
    assert known.counts[-2:] == (N - 200 - 19 * 25, 0)


def test_the_data_of_the_fit_exceed_no_limit(model):
    check = model.check(X)
    assert check.exceeded == {}
    assert all(found.stability_index == 0 for found in check.columns)
    assert str(check).endswith(
        "1,000 rows, compared with 1,000 of the fit: none of 5 columns exceeds a limit"
    )


@pytest.mark.parametrize("n_rows", [1, 10, 100, 10_000])
def test_rows_of_the_same_distribution_rarely_exceed_a_limit(model, n_rows):
    found = [model.check(table(n_rows, seed)).exceeded for seed in range(1, 21)]
    assert sum(map(len, found)) <= 5  # Among 100 columns.


def test_what_differs_is_named(model):
    new = table(500, seed=1)
    new["size"] += 1
    new.loc[:24, "age"] = 200
    new.loc[:49, "city"] = "Lima"
    new.loc[:99, "since"] = pandas.NaT
    new["member"] = ~new["member"]
    check = model.check(new)
    assert check.exceeded["size"][0] == "drift"
    assert check.exceeded["age"] == ("range",)
    assert set(check.exceeded["city"]) >= {"unknown"}
    assert set(check.exceeded["since"]) == {"drift", "missing"}
    assert check.exceeded["member"] == ("drift",)
    age, city, since = (column(check, name) for name in ("age", "city", "since"))
    assert (age.fraction_above, age.fraction_below, age.high) == (0.05, 0, 200)
    assert city.unknown == {"Lima": 0.1} == {"Lima": city.fraction_unknown}
    assert (since.fraction_missing, since.fraction_missing_in_fit) == (0.2, 0)
    assert (since.low_in_fit, since.high_in_fit) == ("2020-01-01", str(X["since"].max())[:10])
    text = str(check)
    assert re.search(r"age +\d+\.\d % -> \d+\.\d % +18 to 79 -> 18 to 200 +above 5.0 %", text)
    assert "Lima 10.0 %" in text
    assert "<td>Lima 10.0 %</td>" in check._repr_html_()
    frame = pandas.DataFrame(check.to_dict())
    assert list(frame["name"]) == list(X.columns)


def test_the_stability_index_is_the_sum_over_bins():
    before, after = np.asarray([10, 30, 60, 0]), np.asarray([30, 30, 40, 0])
    p, q = before[:3] / 100, after[:3] / 100
    found, _ = stability_index(before, after)
    np.testing.assert_allclose(found, np.sum((q - p) * np.log(q / p)), rtol=1e-12)
    gone = stability_index(np.asarray([50, 50]), np.asarray([0, 100]))[0]
    np.testing.assert_allclose(gone, -0.495 * np.log(0.01) + 0.5 * np.log(2), rtol=1e-12)


def test_the_stability_index_by_chance_is_its_quantile():
    rng = np.random.default_rng(0)
    p = np.full(10, 0.1)
    pairs = [(rng.multinomial(1000, p), rng.multinomial(300, p)) for _ in range(2000)]
    found = np.asarray([stability_index(*pair) for pair in pairs])
    assert 0.004 < np.mean(found[:, 0] > found[:, 1]) < 0.02


def test_limits_can_be_chosen(model):
    new = table(5000, seed=1)
    new["size"] += 0.4
    index = column(model.check(new), "size").stability_index
    assert 0.1 < index < 0.25
    assert "size" not in model.check(new, unseen_limit=0.1).exceeded
    assert model.check(new, drift_limit=0.1, unseen_limit=0.1).exceeded == {"size": ("drift",)}


def test_columns_without_values_are_left_out():
    frame = X.assign(empty=np.nan)
    check = small(**SETTINGS).fit(frame, Y).check(frame)
    assert [found.name for found in check.columns] == list(X.columns)


def test_a_matrix_an_ensemble_and_a_constrained_date_are_checked(model):
    matrix = X[["age", "size"]].to_numpy()
    check = small(missing_values="impute").fit(matrix, Y).check(matrix + np.asarray([0, 100]))
    assert check.exceeded == {"x1": ("drift", "range")}
    ensemble = MLPEnsembleClassifier(model, n_estimators=2).fit(X, Y)
    assert str(ensemble.check(X)) == str(model.check(X))
    settings = SETTINGS | {"monotonic_cst": {"since": 1}, "hidden_layer_sizes": 4}
    regressor = MLPRegressor(**settings, max_iter=1, learning_rate="cosine").fit(X, Y)
    assert regressor.check(X).exceeded == {}


def test_saved_and_pickled_models_keep_their_distributions(model, tmp_path):
    for loaded in pickled_and_saved(model, tmp_path):
        assert loaded.columns_.distributions == model.columns_.distributions
        assert str(loaded.check(table(300, 2))) == str(model.check(table(300, 2)))


def test_a_model_of_an_earlier_version_loads_and_says_that_it_has_no_distributions(model):
    spec = model.columns_.to_json()
    del spec["distributions"]
    columns = decode_columns(spec)
    assert columns.distributions == ()
    old = small(**SETTINGS).fit(X, Y)
    old.columns_ = columns
    with pytest.raises(ValueError, match=r"has no distributions .* earlier version"):
        old.check(X)


def test_wide_tables_have_no_distributions():
    wide = np.zeros((30, 1001)) + np.arange(30)[:, None]
    model = small(missing_values="impute").fit(wide, Y[:30])
    with pytest.raises(ValueError, match="more than 1,000 columns"):
        model.check(wide)


def test_bad_input_says_what_to_change(model):
    with pytest.raises(NotFittedError):
        small(**SETTINGS).check(X)
    with pytest.raises(ValueError, match=r"fitted on a plain matrix: .*categorical_features"):
        MLPClassifier(max_iter=1, learning_rate="cosine").fit(X[["size"]], Y).check(X[["size"]])
    with pytest.raises(ValueError, match=r"lacks columns of the fit, 'age'"):
        model.check(X.drop(columns="age"))
    with pytest.raises(ValueError, match=r"X has 2 features, but .* is expecting 5"):
        model.check(X[["age", "size"]].to_numpy())
    with pytest.raises(ValueError, match="X has no rows"):
        model.check(X[:0])
    with pytest.raises(ValueError, match=r"X\['size'\] has categories, but had numbers"):
        model.check(X.assign(size="tall"))
    with pytest.raises(ValueError, match="`drift_limit` must be at least 0, got -1"):
        model.check(X, drift_limit=-1)
    with pytest.warns(UserWarning, match="columns that the fit did not have, ignored: 'more'"):
        model.check(X.assign(more=1))
