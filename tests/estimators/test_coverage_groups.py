"""Intervals and sets of classes whose coverage holds in each group of a column."""

import numpy as np
import pandas as pd
import pytest
from helpers import pickled_and_saved, small

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor
from mlp_xp.datasets import Parquet
from mlp_xp.nn.losses import Quantile

NOISE = {"north": 0.1, "south": 1.0, "": 3.0}
SETTINGS = {
    "early_stopping": True,
    "validation_fraction": 0.4,
    "max_iter": 4,
    "learning_rate_init": 0.02,
    "batch_size": 64,
    "categorical_features": "from_dtype",
    "coverage_by": "region",
}


def draw(n, seed=0):
    """Return rows whose noise depends on a region, which is missing in some rows, and targets."""
    rng = np.random.default_rng(seed)
    regions = rng.choice([*NOISE], n, p=[0.5, 0.3, 0.2])
    x = rng.normal(size=n)
    y = x + np.asarray([NOISE[region] for region in regions]) * rng.normal(size=n)
    shown = [region or None for region in regions.tolist()]
    return pd.DataFrame({"x": x, "region": pd.Series(shown, dtype="str")}), y, regions


def by_group(is_covered, regions):
    return [np.mean(is_covered[regions == region]) for region in NOISE]


def covered(limits, y):
    return (limits[:, 0] <= y) & (y <= limits[:, 1])


def regressor(**settings):
    return small(MLPRegressor, **SETTINGS | {"prediction_intervals": "held_out"} | settings)


def classifier(**settings):
    return small(MLPClassifier, **SETTINGS | {"prediction_sets": "held_out"} | settings)


TRAIN, TEST = draw(2500), draw(4000, 1)


@pytest.mark.parametrize("loss", ["squared_error", "gaussian", Quantile((0.05, 0.95))], ids=repr)
@pytest.mark.parametrize("ensemble", [False, True])
def test_intervals_cover_each_group(loss, ensemble, tmp_path):
    (X, y, _), (X_test, y_test, regions) = TRAIN, TEST
    network = regressor(loss=loss, max_one_hot=1 if ensemble else 8)
    model = MLPEnsembleRegressor(network, 2, random_state=0) if ensemble else network
    limits = model.fit(X, y).predict(X_test, interval=0.9)
    # An average is more accurate than its networks, whose errors set the width.
    expected = pytest.approx([0.9] * 3, abs=0.08 if ensemble else 0.06)
    assert by_group(covered(limits, y_test), regions) == expected
    for again in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(again.predict(X_test, interval=0.9), limits)
    if loss == "squared_error":  # Without groups, the coverage holds on average only.
        plain = network.set_params(coverage_by=None).fit(X, y).predict(X_test, interval=0.9)
        shares = by_group(covered(plain, y_test), regions)
        assert shares[0] > 0.97
        assert shares[2] < 0.8


@pytest.mark.parametrize("ensemble", [False, True])
def test_sets_of_classes_cover_each_group(ensemble, tmp_path):
    (X, y, _), (X_test, y_test, regions) = TRAIN, TEST
    edges = [-2.0, -0.5, 0.5, 2.0]
    model = classifier()
    model = MLPEnsembleClassifier(model, 2, random_state=0) if ensemble else model
    found = model.fit(X, np.digitize(y, edges)).predict_set(X_test, 0.8)
    is_right = found[np.arange(len(found)), np.digitize(y_test, edges)]
    shares = by_group(is_right, regions)
    assert shares[0] > 0.75  # Often more, since a set contains at least the most likely class.
    assert shares[1:] == pytest.approx([0.8] * 2, abs=0.08)
    for again in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(again.predict_set(X_test, 0.8), found)


def test_a_column_of_an_array_may_be_the_groups(on, backend):
    X, y, regions = draw(1200)
    codes = np.unique(regions, return_inverse=True)[1]
    rows = np.stack([X["x"], codes - 0.5], axis=1).astype("float32")
    settings = {"categorical_features": None, "precision": "float32"}
    model = regressor(**settings, coverage_by=-1, early_stopping=False, prediction_intervals=None)
    model.set_params(**on).fit(backend.put(rows[:400]), y[:400])
    model.calibrate_intervals(backend.put(rows[400:800]), y[400:800])
    limits = np.asarray(model.predict(rows[800:], interval=0.8))
    center = np.mean(limits, axis=1)
    half = limits[:, 1] - center
    for code in range(3):
        errors = y[400:800] - np.asarray(model.predict(rows[400:800]))
        ends = np.quantile(errors[codes[400:800] == code], (0.1, 0.9), method="weibull")
        expected = (ends[1] - ends[0]) / 2
        np.testing.assert_allclose(half[codes[800:] == code], expected, rtol=1e-3)


def test_a_table_that_is_read_in_parts_has_groups(tmp_path):
    pytest.importorskip("pyarrow", reason="pandas needs it for this kind of file")
    X, y, _ = TRAIN
    model = regressor().fit(X, y)
    X.to_parquet(tmp_path / "rows.parquet", row_group_size=700)
    found = model.predict(Parquet(tmp_path / "rows.parquet"), interval=0.9)
    np.testing.assert_allclose(found, model.predict(X, interval=0.9))


def test_scorers_see_the_intervals_of_their_groups():
    X, y, _ = TRAIN

    def width(model, X, y):
        return float(np.ptp(model.predict(X, quantiles=(0.05, 0.95)), axis=1).std())

    model = regressor().fit(X, y)
    expected = np.ptp(model.predict(X, interval=0.9), axis=1).std()
    assert expected > 1
    assert model.evaluate(X, y, metrics={"width": width})["width"] == pytest.approx(expected)


def test_a_group_with_too_few_samples_is_an_error_with_its_name():
    X, y, _ = TRAIN
    model = regressor().fit(X[:150], y[:150])
    said = (
        r"Each group of `coverage_by='region'` must have at least 19 held-out samples for the "
        r"quantile 0.05, but 'south' has \d+, 'missing' has \d+: hold out more, e.g. with "
        "validation_fraction=0.3, merge small groups in the column, or calibrate all rows together "
        "with coverage_by=None"
    )
    with pytest.raises(ValueError, match=said):
        model.predict(X, interval=0.9)
    assert len(model.predict(X[X["region"] == "north"], interval=0.9))
    with pytest.raises(ValueError, match=r"held-out samples for coverage=0.99, but 'north' has \d"):
        classifier().fit(X[:200], y[:200] > 0).predict_set(X, 0.99)
    with pytest.raises(
        ValueError, match="Row 1 of X has a value of `coverage_by='region'` that no"
    ):
        model.predict(pd.DataFrame({"x": [0.0, 0], "region": ["north", "west"]}), interval=0.9)
    model.set_params(coverage_by=None).calibrate_intervals(X, y)
    assert len(model.predict(X, interval=0.9)) == len(X)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("regoin", r"X has no column 'regoin', which `coverage_by` names: did you mean 'region'"),
        (2, r"must be the position of one of the 2 columns of X, got 2"),
        ("x", r"must be a column of categories, but 'x' is of the kind 'number': name it in categ"),
    ],
)
def test_a_column_that_cannot_be_groups_is_an_error_before_the_fit(by, said):
    X, y, _ = TRAIN
    model = regressor(coverage_by=by)
    with pytest.raises(ValueError, match=said):
        model.fit(X, y)
    assert not hasattr(model, "coefs_")
