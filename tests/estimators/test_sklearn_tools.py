"""At home among scikit-learn's tools: searches, frames, callbacks, metadata."""

import numpy as np
import pytest
from helpers import problem, small
from sklearn import config_context
from sklearn.model_selection import cross_validate

from mlp_xp import MLPClassifier

X, y = problem(200)
SETTINGS = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "random_state": 0}
SETTINGS |= {"max_iter": 40, "batch_size": 32}
callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")


@pytest.mark.parametrize("library", ["pandas", pytest.param("polars", marks=pytest.mark.matrix)])
def test_frames_and_their_names(library):
    library = pytest.importorskip(library)
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


def test_scikit_learns_score_monitor():
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = small().set_callbacks(monitor).fit(X, y, X_val=X, y_val=y)
    scores = monitor.get_logs().data_as_pandas["accuracy"].tolist()
    # The fit as a whole comes first, then its epochs.
    assert scores == pytest.approx([model.score(X, y), *model.validation_scores_])


def test_scikit_learns_progress_bar(capsys):
    small().set_callbacks(callback.ProgressBar()).fit(X, y)
    assert "MLPClassifier" in capsys.readouterr().out


class Own:
    """A callback of scikit-learn's kind."""

    def __init__(self):
        self.seen = []

    def setup(self, estimator, context):
        self.seen.append("setup")

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
        self.seen.append(fitted_estimator.predict(X))
        return len(self.seen) == 3


def test_a_callback_of_scikit_learn_stops_the_fit():
    model = MLPClassifier(**SETTINGS).set_callbacks(stop := Own()).fit(X, y)
    assert model.n_iter_ == 2
    np.testing.assert_array_equal(stop.seen[2], model.predict(X))
    assert not np.array_equal(stop.seen[1], stop.seen[2])
    assert (stop.seen[0], stop.seen[-1]) == ("setup", "teardown")


def test_a_callback_of_scikit_learn_that_fails_at_first_changes_nothing():
    class Fails(Own):
        def on_fit_task_begin(self, estimator, context):
            raise OSError("the disk is full")

    model = MLPClassifier(**SETTINGS).fit(X, y)
    before = vars(model.set_callbacks(fails := Fails())).copy()
    with pytest.raises(OSError, match="the disk is full"):
        model.fit(X, y)
    assert fails.seen == ["setup", "teardown"]
    assert vars(model) == before


def test_metadata_is_routed():
    weights = np.where(y == 0, 5.0, 1.0)
    with config_context(enable_metadata_routing=True):
        model = small().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        routed = cross_validate(
            model, X, y, cv=2, params={"sample_weight": weights}, return_estimator=True
        )
    plain = cross_validate(small(), X, y, cv=2, return_estimator=True)
    assert routed["estimator"][0].loss_ != plain["estimator"][0].loss_
