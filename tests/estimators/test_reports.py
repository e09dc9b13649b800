"""Reports of an estimator: metrics, history and callbacks."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from helpers import problem, small
from sklearn.metrics import get_scorer

from mlp_xp import MLPRegressor
from mlp_xp.callbacks import Callback
from mlp_xp.estimators import prediction
from mlp_xp.training import inference

X, y = problem()


def test_evaluate_returns_several_metrics_of_one_prediction(monkeypatch):
    X, y = problem(classes=2)
    weights = np.linspace(0.1, 2.0, len(y))
    model = small().fit(X, y)
    names = ["accuracy", "roc_auc", "average_precision", "neg_log_loss", "f1"]
    expected = {n: get_scorer(n)(model, X, y, sample_weight=weights) for n in names}
    passes = []
    whole = prediction.predict
    monkeypatch.setattr(
        prediction, "predict", lambda *args, **kw: passes.append(1) or whole(*args, **kw)
    )
    found = model.evaluate(X, y, weights, metrics=names)
    assert len(passes) == 1
    assert found.pop("loss") == pytest.approx(-expected["neg_log_loss"])
    assert found == pytest.approx(expected)
    assert model.evaluate(X, y).keys() == {"loss", "accuracy"}
    regressor = small(MLPRegressor).fit(X, X[:, :2])
    scores = regressor.evaluate(X, X[:, :2], metrics={"mse": "neg_mean_squared_error"})
    assert scores["loss"] == pytest.approx(-scores["mse"] / 2)
    assert regressor.evaluate(X, X[:, :2])["r2"] == regressor.score(X, X[:, :2])


def test_metrics_of_the_same_name_are_rejected():
    model = small().fit(X, y)

    def loss(model, X, y):
        return 1.0

    first, second = (lambda model, X, y: 1.0), (lambda model, X, y: 2.0)
    for metrics, name in (
        ([first, second], "<lambda>"),
        ([loss], "loss"),
        (loss, "loss"),
        ({"loss": first}, "loss"),
    ):
        with pytest.raises(ValueError, match=rf"metrics has \['{name}'\] more than once.* a dict"):
            model.evaluate(X, y, metrics=metrics)
    assert set(model.evaluate(X, y, metrics=np.asarray(["accuracy"]))) == {"loss", "accuracy"}
    found = model.evaluate(X, y, metrics={"first": first, "second": second})
    assert (found["first"], found["second"]) == (1.0, 2.0)


def test_the_history_is_a_table():
    model = small().fit(X, y, X_val=X, y_val=y)
    frame = pd.DataFrame(model.history_)
    assert frame["loss"].tolist() == model.loss_curve_
    assert frame["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert frame["validation_score"].tolist() == model.validation_scores_


def test_predictions_keep_to_the_working_memory(monkeypatch):
    model = small().fit(X, y)
    whole = model.predict_proba(X)
    rows = []
    take = inference.take_rows

    def watched(x, which):
        block = take(x, which)
        rows.append(block.shape[0])
        return block

    monkeypatch.setattr(inference, "take_rows", watched)
    # Three rows of 8 numbers of 8 bytes, and what they are turned into.
    with sklearn.config_context(working_memory=7 * 3 * 8 * 8 / 2**20):
        np.testing.assert_allclose(model.predict_proba(X), whole, atol=1e-15)
    assert max(rows) == 7


class CallLog(Callback):
    def __init__(self):
        self.calls = []

    def on_fit_begin(self, model):
        self.calls.append("begin")

    def on_step_end(self, model, done, n_steps):
        self.calls.append((done, n_steps))

    def on_epoch_end(self, model, record):
        self.calls.append(record.epoch)
        return record.epoch == 2

    def on_fit_end(self, model):
        self.calls.append("end")


def test_callbacks_are_called_and_can_stop_the_fit():
    log = CallLog()
    model = small(callbacks=[log]).fit(X[:30], y[:30])
    epoch = [(1, 2), (2, 2)]
    assert log.calls == ["begin", *epoch, 1, *epoch, 2, "end"]
    assert model.n_iter_ == 2
    log = CallLog()
    assert small(callbacks=[log], solver="lbfgs").fit(X, y).n_iter_ == 2
    assert log.calls == ["begin", 1, 2, "end"]


def test_callbacks_end_with_a_fit_that_fails():
    class Failing(Callback):
        def on_epoch_end(self, model, record):
            raise RuntimeError("no more")

    log = CallLog()
    model = small(callbacks=[log, Failing()])
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X[:30], y[:30])
    assert log.calls[-1] == "end"
    assert model.predict(X).shape == (60,), "the weights are kept"


def test_a_callback_predicts_while_the_fit_goes_on(backend):
    X_here = backend.put(X)
    scores = []

    class Score(Callback):
        def on_epoch_end(self, model, record):
            scores.append(model.score(X_here, y))

    model = small(callbacks=[Score()])
    model.fit(X_here, y, X_val=X_here, y_val=y)
    assert scores == model.validation_scores_
