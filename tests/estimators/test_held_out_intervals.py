"""Intervals and sets of classes, calibrated with the samples that a fit held out anyway."""

import numpy as np
import pytest
from helpers import pickled_and_saved, problem, small
from sklearn.datasets import make_classification

from mlp_xp import (
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    MLPTunedRegressor,
)
from mlp_xp.nn.losses import Quantile

HELD_OUT = {"early_stopping": True, "validation_fraction": 0.3}
QUICK = {"max_iter": 30, "learning_rate_init": 0.02, "target_scaling": "standardize"}
LEVELS = (0.05, 0.5, 0.95)


def noisy(n, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3, 3, (n, 2))
    return X, np.sin(X[:, 0]) + 0.3 * rng.standard_normal(n)


def classes(n):
    return make_classification(
        n, n_informative=6, n_features=8, n_classes=4, flip_y=0.2, random_state=0
    )


def share_within(limits, y):
    low, high = limits.T
    return np.mean((low <= y) & (y <= high))


def regressor(**settings):
    settings = HELD_OUT | {"prediction_intervals": "held_out"} | settings
    return small(MLPRegressor, **QUICK | settings)


def classifier(**settings):
    settings = HELD_OUT | {"prediction_sets": "held_out"} | settings
    return small(MLPClassifier, max_iter=15, learning_rate_init=0.02, **settings)


@pytest.mark.parametrize("ensemble", [False, True])
def test_intervals_of_held_out_samples_cover(ensemble, tmp_path):
    X, y = noisy(4000)
    model = regressor()
    model = MLPEnsembleRegressor(model, 3, random_state=0) if ensemble else model
    model.fit(X[:1000], y[:1000])
    for interval in (0.8, 0.9):
        found = model.predict(X[1000:], interval=interval)
        assert share_within(found, y[1000:]) == pytest.approx(interval, abs=0.05)
    assert np.mean(found, axis=1) == pytest.approx(model.predict(X[1000:]), abs=0.2)
    for again in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(again.predict(X[1000:], interval=0.9), found)


def test_a_network_uses_the_samples_that_were_passed_as_held_out(backend):
    X, y = noisy(400)
    held_out = {"X_val": backend.put(X[200:]), "y_val": y[200:]}
    model = regressor(
        prediction_intervals=None, early_stopping=False, precision="float32", max_iter=5
    )
    plain = model.fit(backend.put(X[:200]), y[:200], **held_out)
    plain.calibrate_intervals(X[200:], y[200:])
    expected = np.asarray(plain.predict(X, interval=0.9))
    model.set_params(prediction_intervals="held_out").fit(backend.put(X[:200]), y[:200], **held_out)
    np.testing.assert_allclose(np.asarray(model.predict(X, interval=0.9)), expected, atol=1e-4)


@pytest.mark.parametrize("loss", [Quantile(LEVELS), "gaussian", "squared_error"])
def test_each_loss_and_several_outputs_have_intervals(loss):
    X, y = noisy(2500)
    both = np.stack([y, 100 * y], axis=1)
    found = regressor(loss=loss).fit(X[:1000], both[:1000]).predict(X[1000:], interval=0.9)
    assert found.shape == (1500, 2, 2)
    for target in range(2):
        share = share_within(found[:, target], both[1000:, target])
        assert share == pytest.approx(0.9, abs=0.04)


def test_intervals_of_gaussian_ensembles_use_the_held_out_errors(tmp_path):
    X, y = noisy(3000)
    y = np.random.default_rng(1).exponential(size=3000)  # A normal distribution has other tails.
    model = regressor(loss="gaussian", learning_rate_init=0.005)
    ensemble = MLPEnsembleRegressor(model, 2, random_state=0).fit(X[:1000], y[:1000])
    found = ensemble.predict(X[1000:], interval=0.8)
    low, high = found.T
    assert np.mean(y[1000:] < low) == pytest.approx(0.1, abs=0.03)
    assert np.mean(y[1000:] > high) == pytest.approx(0.1, abs=0.03)
    for again in pickled_and_saved(ensemble, tmp_path):
        np.testing.assert_array_equal(again.predict(X[1000:], interval=0.8), found)


def test_a_tuned_ensemble_uses_its_folds():
    X, y = noisy(900)
    model = MLPTunedRegressor(regressor(), n_configurations=1, n_folds=3, random_state=0)
    found = model.fit(X[:400], y[:400]).predict(X[400:], interval=0.9)
    assert share_within(found, y[400:]) == pytest.approx(0.9, abs=0.05)


def test_an_ensemble_adds_up_the_held_out_samples_of_its_networks():
    X, y = noisy(100)
    model = regressor(validation_fraction=0.1)
    said = "must have at least 19 samples for the quantile 0.05, got 10: pass more samples"
    with pytest.raises(ValueError, match=said):
        model.fit(X, y).predict(X, interval=0.9)
    ensemble = MLPEnsembleRegressor(model, 2, random_state=0).fit(X, y)
    assert ensemble.predict(X, interval=0.9).shape == (100, 2)


@pytest.mark.parametrize(
    "model",
    [regressor(early_stopping=False), MLPEnsembleRegressor(small(MLPRegressor), 2)],
    ids=["network", "ensemble"],
)
def test_an_interval_without_held_out_samples_is_an_error_with_the_cure(model):
    X, y = noisy(60)
    said = "fit with prediction_intervals='held_out' and early_stopping=True or X_val, or call"
    with pytest.raises(ValueError, match=said):
        model.fit(X, y).predict(X, interval=0.9)
    with pytest.raises(ValueError, match=r"return_std=True cannot be combined: call predict once"):
        model.predict(X, interval=0.9, return_std=True)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("calibration", [None, "temperature"])
def test_sets_contain_the_correct_class(ensemble, calibration, tmp_path):
    X, y = classes(4000)
    model = classifier(calibration=calibration)
    model = MLPEnsembleClassifier(model, 3, random_state=0) if ensemble else model
    model.fit(X[:1500], y[:1500])
    rows = np.arange(2500)
    for coverage in (0.8, 0.9):
        found = model.predict_set(X[1500:], coverage)
        assert np.mean(found[rows, y[1500:]]) == pytest.approx(coverage, abs=0.04)
    assert np.all(found[rows, np.argmax(model.predict_proba(X[1500:]), axis=1)])
    assert 1.0 < found.sum(axis=1).mean() < 3.0
    for again in pickled_and_saved(model, tmp_path):
        np.testing.assert_array_equal(again.predict_set(X[1500:], 0.9), found)


def test_sets_for_two_classes_and_texts():
    X, y = make_classification(3000, flip_y=0.4, random_state=0)
    names = np.array(["no", "yes"])[y]
    model = classifier().fit(X[:1000], names[:1000])
    found = model.predict_set(X[1000:])
    assert np.mean(found[np.arange(2000), y[1000:]]) == pytest.approx(0.9, abs=0.04)


def test_wrong_requests_for_sets_are_errors_with_the_cure():
    X, y = problem()
    with pytest.raises(ValueError, match=r"fit with prediction_sets='held_out' and early_stopping"):
        classifier(early_stopping=False).fit(X, y).predict_set(X)
    model = classifier().fit(X, y)
    with pytest.raises(ValueError, match=r"`coverage` must be above 0 and below 1, got 90"):
        model.predict_set(X, 90)
    with pytest.raises(ValueError, match=r"`coverage=0.99` must have at least 99 held-out samples"):
        model.predict_set(X, 0.99)
    model.fit(X, np.eye(3, dtype=int)[y])
    with pytest.raises(ValueError, match=r"requires one class for each sample, got multilabel"):
        model.predict_set(X)
