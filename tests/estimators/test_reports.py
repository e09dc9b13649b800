"""Reports of an estimator: metrics, history, callbacks, and scikit-learn's tools."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from helpers import problem, small
from sklearn import config_context
from sklearn.metrics import get_scorer

from mlp_xp import MLPRegressor
from mlp_xp.estimators.fitted import prediction
from mlp_xp.training.inference import inference

X, y = problem()


def test_evaluate_computes_several_metrics_from_one_prediction(monkeypatch):
    X, y = problem(classes=2)
    weights, model = np.linspace(0.1, 2.0, len(y)), small().fit(X, y)
    names = ["accuracy", "roc_auc", "average_precision", "neg_log_loss", "f1"]
    expected = {n: get_scorer(n)(model, X, y, sample_weight=weights) for n in names}
    monkeypatch.setattr(prediction, "predict", passes := Mock(wraps=prediction.predict))
    found = model.evaluate(X, y, weights, metrics=names)
    assert passes.call_count == 1
    assert found.pop("loss") == pytest.approx(-expected["neg_log_loss"])
    assert found == pytest.approx(expected)
    assert model.evaluate(X, y).keys() == {"loss", "accuracy"}
    regressor = small(MLPRegressor).fit(X, X[:, :2])
    scores = regressor.evaluate(X, X[:, :2], metrics={"mse": "neg_mean_squared_error"})
    assert scores["loss"] == pytest.approx(-scores["mse"] / 2)
    assert regressor.evaluate(X, X[:, :2])["r2"] == regressor.score(X, X[:, :2])


def test_metrics_of_the_same_name_are_rejected():
    def loss(model, X, y):
        return 1.0

    model, first, second = small().fit(X, y), lambda *_: 1.0, lambda *_: 2.0
    for metrics, name in (
        *(([first, second], "<lambda>"), ([loss], "loss")),
        *((loss, "loss"), ({"loss": first}, "loss")),
    ):
        with pytest.raises(ValueError, match=rf"metrics has \['{name}'\] more than once.* a dict"):
            model.evaluate(X, y, metrics=metrics)
    assert set(model.evaluate(X, y, metrics=np.asarray(["accuracy"]))) == {"loss", "accuracy"}
    found = model.evaluate(X, y, metrics={"first": first, "second": second})
    assert (found["first"], found["second"]) == (1.0, 2.0)


def test_history_converts_to_a_data_frame():
    model = small().fit(X, y, X_val=X, y_val=y)
    frame = pd.DataFrame(model.history_)
    assert frame["loss"].tolist() == model.loss_curve_
    assert frame["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert frame["validation_score"].tolist() == model.validation_scores_


def test_predictions_respect_the_working_memory(monkeypatch):
    model, blocks, take = small().fit(X, y), [], inference.take_rows
    whole = model.predict_proba(X)

    def watched(x, which):
        blocks.append(take(x, which))
        return blocks[-1]

    monkeypatch.setattr(inference, "take_rows", watched)
    # Three rows of 8 numbers of 8 bytes, and their converted copies.
    with config_context(working_memory=7 * 3 * 8 * 8 / 2**20):
        np.testing.assert_allclose(model.predict_proba(X), whole, atol=1e-15)
    assert max(map(len, blocks)) == 7


def logging(calls):
    """Return a callback that notes its calls, and stops the fit after two epochs."""
    return SimpleNamespace(
        on_fit_begin=lambda model: calls.append("begin"),
        on_step_end=lambda model, *step: calls.append(step),
        on_epoch_end=lambda model, record: calls.append(record.epoch) or record.epoch == 2,
        on_fit_end=lambda model: calls.append("end"),
    )


def fail(*_):
    raise RuntimeError("no more")


def test_callbacks_are_called_and_can_stop_the_fit():
    model, epoch = small(callbacks=[logging(calls := [])]).fit(X[:30], y[:30]), [(1, 2), (2, 2)]
    assert calls == ["begin", *epoch, 1, *epoch, 2, "end"]
    assert model.n_iter_ == 2
    model = small(callbacks=[logging(calls := [])], solver="lbfgs").fit(X, y)
    assert (calls, model.n_iter_) == (["begin", 1, 2, "end"], 2)


def test_callbacks_end_when_a_fit_fails():
    model = small(callbacks=[logging(calls := []), SimpleNamespace(on_epoch_end=fail)])
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X[:30], y[:30])
    assert calls[-1] == "end"
    assert model.predict(X).shape == (60,), "the weights are kept"


def test_callback_can_predict_during_fit(backend):
    X_here, scores = backend.put(X), []
    note = SimpleNamespace(on_epoch_end=lambda model, _: scores.append(model.score(X_here, y)))
    model = small(callbacks=[note]).fit(X_here, y, X_val=X_here, y_val=y)
    assert scores == model.validation_scores_


@pytest.fixture
def callback():
    return pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9")


def test_scikit_learns_scoring_monitor_and_progress_bar_work(callback, capsys):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = small().set_callbacks(monitor, callback.ProgressBar())
    model.fit(X, y, X_val=X, y_val=y)
    scores = monitor.get_logs().data_as_pandas["accuracy"].tolist()
    # The fit as a whole comes first, then its epochs.
    assert scores == pytest.approx([model.score(X, y), *model.validation_scores_])
    assert "MLPClassifier" in capsys.readouterr().out


class Own:
    """A callback of scikit-learn's kind."""

    def __init__(self, begin=lambda *_: None):
        self.seen, self.begin = [], begin

    def setup(self, estimator, context):
        self.seen.append("setup")

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.begin()

    def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
        self.seen.append(fitted_estimator.predict_proba(X))
        return len(self.seen) == 3


@pytest.mark.usefixtures("callback")
def test_a_scikit_learn_callback_can_stop_the_fit():
    model = small().set_callbacks(stop := Own()).fit(X, y)
    assert model.n_iter_ == 2
    np.testing.assert_array_equal(stop.seen[2], model.predict_proba(X))
    assert not np.array_equal(stop.seen[1], stop.seen[2])
    assert (stop.seen[0], stop.seen[-1]) == ("setup", "teardown")


@pytest.mark.usefixtures("callback")
def test_failing_scikit_learn_callback_leaves_the_model_unchanged():
    model = small().fit(X, y)
    before = vars(model.set_callbacks(fails := Own(fail))).copy()
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X, y)
    assert fails.seen == ["setup", "teardown"]
    assert vars(model) == before
