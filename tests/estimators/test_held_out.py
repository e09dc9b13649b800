"""Held-out data: what stops a fit, what is kept, through pipelines and searches."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from helpers import problem, small
from sklearn.base import clone
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlp_xp import MLPClassifier, MLPRegressor

SETTINGS = {"hidden_layer_sizes": (8,), "batch_size": 16, "random_state": 0}


def halves(n=200, classes=3):
    X, y = problem(n, classes=classes)
    return X[: n // 2], y[: n // 2], X[n // 2 :], y[n // 2 :]


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_the_users_own_validation_set_stops_the_fit_on_every_backend(backend):
    X, y, X_val, y_val = halves()
    settings = {"max_iter": 60, "early_stopping": True, "n_iter_no_change": 3, "tol": 0.0}
    expected = MLPClassifier(**SETTINGS, **settings).fit(X, y, X_val=X_val, y_val=y_val)
    model = MLPClassifier(**SETTINGS, **settings)
    model.fit(backend.put(X), y, X_val=backend.put(X_val), y_val=y_val)
    assert model.n_iter_ == expected.n_iter_ < 60
    assert model.validation_scores_ == expected.validation_scores_
    np.testing.assert_allclose(
        model.validation_loss_curve_, expected.validation_loss_curve_, rtol=1e-6
    )


def test_the_weights_of_the_best_epoch_come_back(problem):
    X, y = problem()
    scores = iter([0.0, 0.1, 0.9, 0.2, 0.3, 0.4])  # The first is a trial, before any epoch.
    model = small(early_stopping=True, scoring=lambda *_: next(scores))
    model.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    two = small(max_iter=2).fit(X[:40], y[:40])
    assert model.best_validation_score_ == max(model.validation_scores_) == 0.9
    np.testing.assert_array_equal(model.coefs_[0], two.coefs_[0])


def test_without_early_stopping_the_curves_are_kept_and_nothing_else_changes():
    X, y, X_val, y_val = halves()
    plain = MLPClassifier(**SETTINGS, max_iter=8).fit(X, y)
    watched = MLPClassifier(**SETTINGS, max_iter=8).fit(X, y, X_val=X_val, y_val=y_val)
    assert plain.loss_curve_ == watched.loss_curve_
    np.testing.assert_array_equal(plain.coefs_[0], watched.coefs_[0])
    assert plain.validation_scores_ is plain.validation_loss_curve_ is None
    assert len(watched.validation_scores_) == len(watched.validation_loss_curve_) == 8
    assert watched.validation_scores_[-1] == watched.score(X_val, y_val)
    loss = log_loss(y_val, watched.predict_proba(X_val))
    assert watched.validation_loss_curve_[-1] == pytest.approx(loss)
    assert watched.history_[-1].validation_loss == watched.validation_loss_curve_[-1]


def test_validation_weights_count():
    X, y, X_val, y_val = halves()
    weights = np.where(y_val == 0, 5.0, 1.0)
    model = MLPClassifier(**SETTINGS, max_iter=3)
    model.fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=weights)
    assert model.validation_scores_[-1] == model.score(X_val, y_val, weights)
    loss = log_loss(y_val, model.predict_proba(X_val), sample_weight=weights)
    assert model.validation_loss_curve_[-1] == pytest.approx(loss)


@pytest.mark.parametrize("scoring", ["roc_auc_ovr", "neg_log_loss", "f1_macro", "top_k_accuracy"])
def test_any_scorer_by_name(scoring):
    X, y, X_val, y_val = halves()
    model = MLPClassifier(**SETTINGS, scoring=scoring, max_iter=4, early_stopping=True)
    model.fit(X, y, X_val=X_val, y_val=y_val)
    assert model.best_validation_score_ == max(model.validation_scores_)
    expected = get_scorer(scoring)(model, X_val, y_val)
    assert model.best_validation_score_ == pytest.approx(expected)


def test_a_scorer_of_decision_values_and_a_scorer_for_regression():
    X, y, X_val, y_val = halves(classes=2)
    model = MLPClassifier(**SETTINGS, scoring="roc_auc", max_iter=4)
    model.fit(X, y, X_val=X_val, y_val=y_val)
    assert model.validation_scores_[-1] == pytest.approx(get_scorer("roc_auc")(model, X_val, y_val))
    regressor = MLPRegressor(**SETTINGS, scoring="neg_median_absolute_error", max_iter=4)
    regressor.fit(X, X[:, 0], X_val=X_val, y_val=X_val[:, 0])
    expected = get_scorer("neg_median_absolute_error")(regressor, X_val, X_val[:, 0])
    assert regressor.validation_scores_[-1] == pytest.approx(expected)


def test_a_callable_scorer_and_the_loss():
    def share_of_0(model, X, y):
        return float(np.mean(model.predict(X) == 0))

    X, y, X_val, y_val = halves()
    model = MLPClassifier(**SETTINGS, scoring=share_of_0, max_iter=3)
    model.fit(X, y, X_val=X_val, y_val=y_val)
    assert model.validation_scores_[-1] == np.mean(model.predict(X_val) == 0)
    by_loss = MLPClassifier(**SETTINGS, scoring="loss", max_iter=200, early_stopping=True, tol=0.0)
    by_loss.fit(X, y, X_val=X_val, y_val=y_val)
    assert by_loss.best_validation_score_ == -min(by_loss.validation_loss_curve_)
    found = log_loss(y_val, by_loss.predict_proba(X_val))
    assert found == pytest.approx(min(by_loss.validation_loss_curve_))


def test_the_held_out_share_is_stratified_and_the_same_each_time(problem):
    X, _ = problem(100)
    y = np.repeat([0, 1, 2], [80, 10, 10])
    seen = []

    def scorer(model, X_held, y_held):
        seen.append(np.sort(y_held))
        return 0.0

    model = MLPClassifier(**SETTINGS, early_stopping=True, scoring=scorer, max_iter=2)
    model.fit(X, y)
    assert np.bincount(seen[0]).tolist() == [8, 1, 1]
    np.testing.assert_array_equal(seen[0], seen[1])
    # A class with a single member is no reason not to fit, as in scikit-learn.
    MLPClassifier(**SETTINGS, early_stopping=True, max_iter=2).fit(X, np.r_[y[:-1], 3])


@pytest.mark.parametrize(
    ("y", "fraction", "message"),
    [
        (np.arange(50) == 7, 0.1, "only 1 member, which is too few"),
        (np.arange(50) % 2, 0.02, "should be greater or equal to the number of classes = 2"),
        (np.arange(50) % 3, 0.0, "test_size=0.0 should be"),
        (np.eye(3)[np.arange(50) % 3], 0.99, "the resulting train set will be empty"),
    ],
)
def test_samples_that_cannot_be_held_out_are_reported_with_a_cure(problem, y, fraction, message):
    X, _ = problem(50)
    told = rf"{message}.*(?<!\.)\. early_stopping=True holds out validation_fraction={fraction} of"
    cure = f"{told} 50 samples: .* give X_val and y_val"
    with pytest.raises(ValueError, match=cure):
        MLPClassifier(**SETTINGS, early_stopping=True, validation_fraction=fraction).fit(X, y)


def test_partial_fit_works_with_early_stopping():
    X, y, X_val, y_val = halves()
    model = MLPClassifier(**SETTINGS, early_stopping=True)
    for calls in range(1, 4):
        model.partial_fit(X, y, classes=[0, 1, 2], X_val=X_val, y_val=y_val)
        assert len(model.validation_scores_) == calls
    assert model.validation_scores_[-1] == model.score(X_val, y_val)
    held_out = MLPRegressor(**SETTINGS, early_stopping=True)
    held_out.partial_fit(X, X[:, 0]).partial_fit(X, X[:, 0])
    assert len(held_out.validation_scores_) == 2
    assert held_out.t_ == 2 * 90


def test_lbfgs_ignores_early_stopping_and_measures_what_it_is_given():
    X, y, X_val, y_val = halves()
    settings = SETTINGS | {"hidden_layer_sizes": (30,), "solver": "lbfgs", "max_iter": 500}
    plain = MLPClassifier(**settings).fit(X, y)
    model = MLPClassifier(**settings, early_stopping=True).fit(X, y)
    assert (model.n_iter_, model.loss_) == (plain.n_iter_, plain.loss_)
    assert model.validation_scores_ is None
    model.fit(X, y, X_val=X_val, y_val=y_val)
    assert (model.n_iter_, model.loss_) == (plain.n_iter_, plain.loss_)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_scores_) < 500
    assert model.score(X_val, y_val) == model.validation_scores_[-1]
    assert np.all(np.diff(model.loss_curve_) <= 0)
    assert model.loss_ == model.best_loss_ == model.loss_curve_[-1] < model.loss_curve_[0] / 10


def test_in_a_pipeline_the_validation_data_are_transformed(routing):
    X, y, X_val, y_val = halves()
    X, X_val = 1000 + 50 * X, 1000 + 50 * X_val
    settings = SETTINGS | {"early_stopping": True, "max_iter": 40}
    model = MLPClassifier(**settings).set_fit_request(X_val=True, y_val=True)
    pipeline = make_pipeline(StandardScaler(), model, transform_input=["X_val"])
    pipeline.fit(X, y, X_val=X_val, y_val=y_val)
    scaler = StandardScaler().fit(X)
    direct = MLPClassifier(**settings)
    direct.fit(scaler.transform(X), y, X_val=scaler.transform(X_val), y_val=y_val)
    assert pipeline[-1].validation_scores_ == direct.validation_scores_
    np.testing.assert_array_equal(pipeline.predict(X_val), direct.predict(scaler.transform(X_val)))


def test_in_a_grid_search(routing):
    X, y, X_val, y_val = halves()
    model = MLPClassifier(**SETTINGS, early_stopping=True, max_iter=20)
    model.set_fit_request(X_val=True, y_val=True, sample_weight=True)
    model.set_score_request(sample_weight=False)
    search = GridSearchCV(model, {"learning_rate_init": [1e-3, 1e-2]}, cv=2, n_jobs=2)
    search.fit(X, y, X_val=X_val, y_val=y_val, sample_weight=np.ones(len(y)))
    assert search.best_params_ == {"learning_rate_init": 1e-2}
    assert search.best_estimator_.score(X_val, y_val) == max(
        search.best_estimator_.validation_scores_
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X_val": True}, "belong together, and y_val is None"),
        ({"y_val": True}, "belong together, and X_val is None"),
        ({"sample_weight_val": True}, "sample_weight_val is given without"),
    ],
)
def test_half_a_validation_set_is_rejected(given, message):
    X, y, X_val, y_val = halves()
    data = {"X_val": X_val, "y_val": y_val, "sample_weight_val": np.ones(len(y_val))}
    with pytest.raises(ValueError, match=message):
        MLPClassifier().fit(X, y, **{name: data[name] for name in given})


def test_bad_validation_data_are_rejected_and_change_nothing():
    X, y, X_val, y_val = halves()
    model = MLPClassifier(**SETTINGS, max_iter=2).fit(X, y)
    before = model.coefs_[0].copy()
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X, y, X_val=np.where(X_val > 1, np.nan, X_val), y_val=y_val)
    with pytest.raises(ValueError, match="features"):
        model.fit(X, y, X_val=X_val[:, :-1], y_val=y_val)
    with pytest.raises(ValueError, match=r"not in `self\.classes_`"):
        model.fit(X, y, X_val=X_val, y_val=y_val + 7)
    np.testing.assert_array_equal(model.coefs_[0], before)
    fresh = clone(model)
    with pytest.raises(ValueError, match="features"):
        fresh.fit(X, y, X_val=X_val[:, :-1], y_val=y_val)
    assert not hasattr(fresh, "coefs_")


def test_a_split_as_scikit_learn_makes_it_by_hand_gives_the_same(problem):
    X, y = problem(100)
    model = MLPClassifier(**SETTINGS, early_stopping=True, max_iter=10).fit(X, y)
    fit, held = train_test_split(np.arange(100), test_size=0.1, random_state=0, stratify=y)
    by_hand = MLPClassifier(**SETTINGS, early_stopping=True, max_iter=10)
    by_hand.fit(X[fit], y[fit], X_val=X[held], y_val=y[held])
    assert model.validation_scores_ == by_hand.validation_scores_
