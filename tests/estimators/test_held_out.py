"""Held-out data: what stops a fit, what is kept, through pipelines and searches."""

import numpy as np
import pytest
from helpers import problem, small
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import check_scoring, log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlp_xp import MLPClassifier, MLPRegressor

SETTINGS = {"hidden_layer_sizes": (8,), "batch_size": 16, "random_state": 0}
X, X_val = np.split(problem(200)[0], 2)
y, y_val = np.split(problem(200)[1], 2)
HELD_OUT = {"X_val": X_val, "y_val": y_val}


def test_a_given_validation_set_stops_the_fit_on_every_backend(backend):
    settings = SETTINGS | {"max_iter": 60, "early_stopping": True, "n_iter_no_change": 3}
    expected, model = (MLPClassifier(**settings, tol=0.0) for _ in range(2))
    expected.fit(X, y, **HELD_OUT)
    model.fit(backend.put(X), y, X_val=backend.put(X_val), y_val=y_val)
    assert model.n_iter_ == expected.n_iter_ < 60
    assert model.validation_scores_ == expected.validation_scores_
    losses = model.validation_loss_curve_, expected.validation_loss_curve_
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_early_stopping_restores_the_weights_of_the_best_epoch():
    scores = iter([0.0, 0.1, 0.9, 0.2, 0.3, 0.4])  # The first is a trial, before any epoch.
    model = small(early_stopping=True, scoring=lambda *_: next(scores)).fit(X, y, **HELD_OUT)
    two = small(max_iter=2).fit(X, y)
    assert model.best_validation_score_ == max(model.validation_scores_) == 0.9
    np.testing.assert_array_equal(model.coefs_[0], two.coefs_[0])


def test_validation_data_without_early_stopping_only_record_curves():
    settings = SETTINGS | {"max_iter": 300, "learning_rate_init": 0.01}
    plain = MLPClassifier(**settings).fit(X, y)
    watched = MLPClassifier(**settings).fit(X, y, **HELD_OUT)
    assert plain.loss_curve_ == watched.loss_curve_
    assert len(plain.loss_curve_) < 300  # The loss decides when training ends.
    np.testing.assert_array_equal(plain.coefs_[0], watched.coefs_[0])
    assert plain.validation_scores_ is plain.validation_loss_curve_ is None
    scores, losses = watched.validation_scores_, watched.validation_loss_curve_
    assert len(scores) == len(losses) == len(plain.loss_curve_)
    assert scores[-1] == watched.score(X_val, y_val)
    assert losses[-1] == pytest.approx(log_loss(y_val, watched.predict_proba(X_val)))
    assert watched.history_[-1].validation_loss == losses[-1]


def test_validation_weights_are_passed_to_scorers_that_accept_them():
    weights, seen = np.where(y_val == 0, 5.0, 1.0), []

    def plain(model, X, y):
        return float(np.mean(model.predict(X) == y))

    def weighted(model, X, y, sample_weight=None):
        seen.append(sample_weight)
        return float(np.average(model.predict(X) == y, weights=sample_weight))

    for scoring, given in ((None, weights), (plain, None), (weighted, weights)):
        model = MLPClassifier(**SETTINGS, max_iter=3, scoring=scoring)
        model.fit(X, y, **HELD_OUT, sample_weight_val=weights)
        assert model.validation_scores_[-1] == model.score(X_val, y_val, given)
        loss = log_loss(y_val, model.predict_proba(X_val), sample_weight=weights)
        assert model.validation_loss_curve_[-1] == pytest.approx(loss)
    np.testing.assert_array_equal(seen[-1], weights)
    seen.clear()  # Class weights are for training, and not for the score.
    small(class_weight="balanced", early_stopping=True, scoring=weighted).fit(X, y)
    small(class_weight="balanced", scoring=weighted).fit(X, y, X_val=X_val, y_val=0 * y_val)
    assert set(seen) == {None}
    regressor = MLPRegressor(max_iter=2, scoring="neg_max_error", early_stopping=True)
    regressor.fit(X, X[:, 0], sample_weight=np.ones(100))  # This scorer takes no weights.


@pytest.mark.parametrize(
    ("scoring", "targets", "output"),
    [
        *((name, y, "auto") for name in ("roc_auc_ovr", "neg_log_loss", "f1_macro")),
        ("top_k_accuracy", y, "auto"),
        # A scorer of decision values, for each way to have two classes.
        *(("roc_auc", X[:, 0] > 0, output) for output in ("auto", "softmax")),
        ("neg_median_absolute_error", X[:, 0], "auto"),
        (lambda model, X, y: float(np.mean(model.predict(X) == 0)), y, "auto"),
        *((lambda model, X, y: model.score(X, y), targets, "auto") for targets in (y, X[:, 0])),
    ],
)
def test_any_scikit_learn_scorer_can_be_used(scoring, targets, output):
    kind = MLPRegressor if targets.dtype.kind == "f" else MLPClassifier
    model = kind(**SETTINGS, max_iter=4, scoring=scoring, output_activation=output)
    held = {"X_val": X[60:], "y_val": targets[60:]}
    model.set_params(early_stopping=True).fit(X[:60], targets[:60], **held)
    assert model.best_validation_score_ == max(model.validation_scores_)
    expected = check_scoring(model, scoring)(model, *held.values())
    assert model.best_validation_score_ == pytest.approx(expected)
    found = model.evaluate(*held.values(), metrics={"it": scoring})
    assert found["it"] == pytest.approx(expected)


def test_loss_can_be_used_as_a_scorer():
    model = MLPClassifier(**SETTINGS, scoring="loss", max_iter=200, early_stopping=True, tol=0.0)
    lowest = min(model.fit(X, y, **HELD_OUT).validation_loss_curve_)
    assert model.best_validation_score_ == -lowest
    assert log_loss(y_val, model.predict_proba(X_val)) == pytest.approx(lowest)


def test_held_out_samples_are_scikit_learns_stratified_split():
    labels, seen = np.repeat([0, 1, 2], [80, 10, 10]), []
    settings = SETTINGS | {"early_stopping": True, "max_iter": 10}

    def scorer(model, X_held, y_held):
        seen.append(np.sort(y_held))
        return 0.0

    MLPClassifier(**settings, scoring=scorer).fit(X, labels)
    assert np.bincount(seen[0]).tolist() == [8, 1, 1]
    np.testing.assert_array_equal(seen[0], seen[1])
    # A class with a single member is no reason not to fit, as in scikit-learn.
    MLPClassifier(**settings).fit(X, np.r_[labels[:-1], 3])
    # A training part smaller than the number of classes is no error.
    MLPClassifier(**settings | {"batch_size": 1}, validation_fraction=0.98).fit(X, labels)
    fit, held = train_test_split(np.arange(100), test_size=0.1, random_state=0, stratify=y)
    by_hand = MLPClassifier(**settings).fit(X[fit], y[fit], X_val=X[held], y_val=y[held])
    assert MLPClassifier(**settings).fit(X, y).validation_scores_ == by_hand.validation_scores_


@pytest.mark.parametrize(
    ("labels", "fraction", "message", "cure"),
    [
        (np.arange(50) == 7, 0.1, "only 1 member, which is too few", "add samples of class True"),
        (np.arange(50) % 2, 0.02, "should be greater or equal to the number of", "change it"),
        (np.arange(50) % 3, 0.0, "test_size=0.0 should be", "change it"),
        (np.eye(3)[np.arange(50) % 3], 0.99, "the resulting train set will be", "change it"),
    ],
)
def test_impossible_validation_splits_are_an_error_with_a_remedy(labels, fraction, message, cure):
    told = rf"{message}.*(?<!\.)\. early_stopping=True holds out validation_fraction={fraction} of"
    with pytest.raises(ValueError, match=f"{told} 50 samples: {cure}, or pass X_val and y_val"):
        MLPClassifier(early_stopping=True, validation_fraction=fraction).fit(X[:50], labels)


def test_partial_fit_works_with_early_stopping():
    model = MLPClassifier(**SETTINGS, early_stopping=True)
    for calls in range(1, 4):
        model.partial_fit(X, y, classes=[0, 1, 2], **HELD_OUT)
        assert len(model.validation_scores_) == calls
    assert model.validation_scores_[-1] == model.score(X_val, y_val)
    model = MLPRegressor(**SETTINGS, early_stopping=True)
    model.partial_fit(X, X[:, 0]).partial_fit(X, X[:, 0])
    assert (len(model.validation_scores_), model.t_) == (2, 2 * 90)


def test_lbfgs_ignores_early_stopping_but_scores_given_validation_data():
    settings = SETTINGS | {"hidden_layer_sizes": (30,), "solver": "lbfgs", "max_iter": 500}
    plain = MLPClassifier(**settings).fit(X, y)
    model = MLPClassifier(**settings, early_stopping=True).fit(X, y)
    assert (model.n_iter_, model.loss_) == (plain.n_iter_, plain.loss_)
    assert model.validation_scores_ is None
    model.fit(X, y, **HELD_OUT)
    assert (model.n_iter_, model.loss_) == (plain.n_iter_, plain.loss_)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_scores_) < 500
    assert model.score(X_val, y_val) == model.validation_scores_[-1]
    assert np.all(np.diff(model.loss_curve_) <= 0)
    assert model.loss_ == model.best_loss_ == model.loss_curve_[-1] < model.loss_curve_[0] / 10


@config_context(enable_metadata_routing=True)
def test_pipelines_transform_the_validation_data():
    far, far_val = 1000 + 50 * X, 1000 + 50 * X_val
    settings = SETTINGS | {"early_stopping": True, "max_iter": 40}
    model = MLPClassifier(**settings).set_fit_request(X_val=True, y_val=True)
    pipeline = make_pipeline(StandardScaler(), model, transform_input=["X_val"])
    pipeline.fit(far, y, X_val=far_val, y_val=y_val)
    scaler, direct = StandardScaler().fit(far), MLPClassifier(**settings)
    near_val = scaler.transform(far_val)
    direct.fit(scaler.transform(far), y, X_val=near_val, y_val=y_val)
    assert pipeline[-1].validation_scores_ == direct.validation_scores_
    np.testing.assert_array_equal(pipeline.predict(far_val), direct.predict(near_val))


@config_context(enable_metadata_routing=True)
def test_grid_search_routes_validation_data():
    model, weights = small(early_stopping=True, max_iter=20), np.where(y == 0, 5.0, 1.0)
    model.set_fit_request(X_val=True, y_val=True, sample_weight=True)
    model.set_score_request(sample_weight=False)
    search = GridSearchCV(model, {"learning_rate_init": [1e-3, 1e-2]}, cv=2)
    best = search.fit(X, y, **HELD_OUT, sample_weight=weights).best_estimator_
    assert best.score(X_val, y_val) == max(best.validation_scores_)
    direct = clone(model).set_params(**search.best_params_).fit(X, y, weights, **HELD_OUT)
    np.testing.assert_array_equal(best.coefs_[0], direct.coefs_[0])
    assert direct.loss_ != clone(direct).fit(X, y, **HELD_OUT).loss_


NO_MEMBER = (np.arange(100) == 0).astype(float)


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        ({}, {"X_val": X_val}, "must be given together, but y_val is None"),
        ({}, {"y_val": y_val}, "must be given together, but X_val is None"),
        ({}, {"sample_weight_val": np.ones(100)}, "sample_weight_val is given without"),
        ({}, {"X_val": X_val + np.nan, "y_val": y_val}, r"^X_val: .* NaN: set .*routing"),
        ({}, {"X_val": X_val[:, :-1], "y_val": y_val}, "X_val: X has .* features.*routing"),
        (
            {},
            {"X_val": [["a"]], "y_val": [0]},
            r"^X_val: could not .* float: 'a'. By default, a Pipeline",
        ),
        ({}, {"X_val": X_val, "y_val": y_val + 7}, r"^(?!.*partial_fit)`y_val` has .*of y_val"),
        ({"scoring": lambda model, *_: model.no_such}, HELD_OUT, "no_such"),
        ({"early_stopping": True}, {"sample_weight": NO_MEMBER}, "of the samples|non-zero"),
    ],
)
def test_invalid_validation_data_and_scorers_leave_the_model_unchanged(settings, given, message):
    model = MLPClassifier(**SETTINGS, max_iter=2).fit(X, y)
    before, fresh = model.coefs_[0].copy(), clone(model)
    for each in (model, fresh):
        with pytest.raises((ValueError, AttributeError), match=message):
            each.set_params(**settings).fit(X, y, **given)
    np.testing.assert_array_equal(model.coefs_[0], before)
    assert not hasattr(fresh, "coefs_")


def test_scorer_sees_fitted_attributes_which_a_failed_fit_removes():
    def score(model, X, y):
        seen.append((model.coefs_[0].shape, model.n_features_in_, model.classes_.tolist()))
        raise RuntimeError("no score")

    seen, generator = [], np.random.RandomState(3)
    model = MLPClassifier(**SETTINGS | {"random_state": generator}, scoring=score)
    parameters = vars(model).copy()
    with pytest.raises(RuntimeError, match="no score"):
        model.fit(X, y, **HELD_OUT)
    assert seen == [((X.shape[1], 8), X.shape[1], np.unique(y).tolist())]
    assert vars(model) == parameters
    assert generator.randint(1000) == np.random.RandomState(3).randint(1000)


def test_scorer_sees_the_weights_of_each_epoch():
    def score(model, X, y):
        found.append(float(np.sum(np.abs(model.coefs_[0]))))
        return 0.0

    class Watch:
        def on_epoch_end(self, model, record):
            return False

    found = []
    model = small(max_iter=3, scoring=score, callbacks=[Watch()]).fit(X, y, **HELD_OUT)
    assert len(set(found)) > 1
    assert model.n_iter_ == 3


@pytest.mark.parametrize(
    ("kind", "fitted", "held"),
    [
        (MLPRegressor, (100, 2), (100,)),
        (MLPRegressor, (100,), (100, 2)),
        (MLPClassifier, (100,), (100, 3)),
        (MLPClassifier, (100, 3), (100,)),
        (MLPClassifier, (100, 3), (100, 4)),
    ],
)
def test_held_out_targets_of_another_shape_are_rejected(kind, fitted, held):
    targets, others = (np.random.default_rng(0).integers(0, 2, shape) for shape in (fitted, held))
    for scoring in ("loss", None):
        model = kind(max_iter=2, scoring=scoring, learning_rate="cosine")
        with pytest.raises(ValueError, match=r"y_val has shape .* but the network was fitted on"):
            model.fit(X, targets, X_val=X, y_val=others)
        assert not hasattr(model, "coefs_")
        with pytest.raises(ValueError, match=r"^y has shape .* but the network was fitted on"):
            model.fit(X, targets).evaluate(X, others)
