"""At home among scikit-learn's tools: searches, ensembles, calibration, frames, callbacks."""

from __future__ import annotations

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import small
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate, learning_curve
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlp_xp import MLPClassifier, MLPRegressor

SETTINGS = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "random_state": 0}
SETTINGS |= {"max_iter": 40, "batch_size": 32}


@pytest.fixture
def data(problem):
    return problem(200)


def test_pipeline_search_and_cross_validation_in_parallel(data):
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SETTINGS))
    grid = {"mlpclassifier__dropout": [0.0, 0.9], "mlpclassifier__activation": ["relu", "gelu"]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(*data)
    assert search.best_params_["mlpclassifier__dropout"] == 0.0
    scores = cross_val_score(pipeline, *data, cv=3, n_jobs=2)
    assert scores.mean() > 0.85


@pytest.mark.parametrize(
    "tool",
    [
        CalibratedClassifierCV(MLPClassifier(**SETTINGS), cv=3),
        CalibratedClassifierCV(MLPClassifier(**SETTINGS), method="isotonic", cv=3),
        BaggingClassifier(MLPClassifier(**SETTINGS), n_estimators=3, n_jobs=2),
        AdaBoostClassifier(MLPClassifier(**SETTINGS), n_estimators=2),
        StackingClassifier(
            [("mlp", MLPClassifier(**SETTINGS)), ("linear", LogisticRegression())], cv=3
        ),
        VotingClassifier(
            [("a", MLPClassifier(**SETTINGS)), ("b", LogisticRegression())], voting="soft"
        ),
    ],
    ids=lambda tool: type(tool).__name__,
)
def test_ensembles_and_calibration(tool, data):
    assert tool.fit(*data).score(*data) > 0.85


def test_several_answers_importance_targets_and_curves(data):
    X, y = data
    both = np.stack([y, X[:, 5] > 0], axis=1).astype(int)
    assert MultiOutputClassifier(MLPClassifier(**SETTINGS)).fit(X, both).score(X, both) > 0.7
    model = MLPClassifier(**SETTINGS).fit(X, y)
    importance = permutation_importance(model, X, y, n_repeats=3, random_state=0)
    assert importance.importances_mean[:3].min() > importance.importances_mean[3:].max()
    scaled = TransformedTargetRegressor(MLPRegressor(**SETTINGS), transformer=StandardScaler())
    assert scaled.fit(X, 1e3 * X[:, 0]).score(X, 1e3 * X[:, 0]) > 0.9
    model.set_params(batch_size="auto")
    sizes, _, test = learning_curve(model, X, y, cv=3, train_sizes=[0.2, 1.0])
    assert test[1].mean() > test[0].mean(), sizes


def test_joblib_dump_and_load(data, tmp_path):
    model = MLPClassifier(**SETTINGS).fit(*data)
    joblib.dump(model, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(loaded.predict_proba(data[0]), model.predict_proba(data[0]))


@pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
def test_frames_and_their_names(library, data):
    X, y = data
    columns = [f"column {i}" for i in range(6)]
    frame = library.DataFrame({name: X[:, i] for i, name in enumerate(columns)})
    labels = library.Series(np.where(y == 0, "zero", "more"))
    model = MLPClassifier(**SETTINGS, early_stopping=True, scoring="roc_auc").fit(frame, labels)
    assert model.feature_names_in_.tolist() == columns
    assert model.classes_.tolist() == ["more", "zero"]
    assert model.score(frame, labels) > 0.8
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[columns[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")


def test_scikit_learns_score_monitor(data):
    X, y = data
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = MLPClassifier(**SETTINGS | {"max_iter": 4}).set_callbacks(monitor)
    model.fit(X, y, X_val=X, y_val=y)
    log = monitor.get_logs().data_as_pandas
    scores = log["accuracy"].tolist()
    # The fit as a whole comes first, then its epochs.
    assert scores == pytest.approx([model.score(X, y), *model.validation_scores_])


def test_scikit_learns_progress_bar(data, capsys):
    pytest.importorskip("rich")
    model = MLPClassifier(**SETTINGS | {"max_iter": 3}).set_callbacks(callback.ProgressBar())
    model.fit(*data)
    assert "MLPClassifier" in capsys.readouterr().out


def test_a_callback_of_scikit_learn_stops_the_fit(data):
    class Stop:
        def setup(self, estimator, context):
            self.seen = []

        def teardown(self, estimator, context):
            self.seen.append("teardown")

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
            self.seen.append(fitted_estimator.predict(X))
            return len(self.seen) == 2

    stop = Stop()
    model = MLPClassifier(**SETTINGS).set_callbacks(stop).fit(*data)
    assert model.n_iter_ == 2
    np.testing.assert_array_equal(stop.seen[1], model.predict(data[0]))
    assert not np.array_equal(stop.seen[0], stop.seen[1])
    assert stop.seen[-1] == "teardown"


def test_a_callback_of_scikit_learn_that_fails_at_first_changes_nothing(data):
    class Fails:
        seen = ()

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            self.seen = "teardown"

        def on_fit_task_begin(self, estimator, context):
            raise OSError("the disk is full")

        def on_fit_task_end(self, estimator, context):
            pass

    model = MLPClassifier(**SETTINGS).fit(*data)
    fails = Fails()
    before = vars(model.set_callbacks(fails)).copy()
    with pytest.raises(OSError, match="the disk is full"):
        model.fit(*data)
    assert fails.seen == "teardown"
    assert vars(model) == before


def test_metadata_is_routed(data):
    X, y = data
    weights = np.where(y == 0, 5.0, 1.0)
    with config_context(enable_metadata_routing=True):
        model = small().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        routed = cross_validate(
            model, X, y, cv=2, params={"sample_weight": weights}, return_estimator=True
        )
    assert (
        routed["estimator"][0].loss_
        != cross_validate(small(), X, y, cv=2, return_estimator=True)["estimator"][0].loss_
    )
