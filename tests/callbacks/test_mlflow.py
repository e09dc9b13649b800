"""Fits recorded by MLflow: by the callback as its `autolog` records scikit-learn's, and by it."""

import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pages
import pandas as pd
import pytest
from fake_fit import SCORED, X, Y, fit
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.callbacks import MLflow

# Libraries that MLflow imports deprecate each other's names.
pytestmark = pytest.mark.filterwarnings("ignore", "error:The model was not logged")
FEW = {"max_iter": 3, "learning_rate": "cosine", "random_state": 0}


@pytest.fixture
def stand_in(monkeypatch):
    """Note the calls of the callback where MLflow itself is not installed."""

    class MlflowError(Exception):
        pass

    found = MagicMock()
    found.active_run.return_value, found.MlflowException = None, MlflowError
    found.models.infer_signature.side_effect = lambda X, y: (X, y)
    skops = ModuleType("skops")
    skops.io = MagicMock()
    modules = {"mlflow": found, "mlflow.sklearn": found.sklearn, "mlflow.models": found.models}
    for name, module in (modules | {"skops": skops, "skops.io": skops.io}).items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


def test_a_fit_logs_parameters_epochs_and_a_model_with_column_names(stand_in):
    data = pd.DataFrame(X, columns=list("abcde"))
    model = MLPClassifier(max_iter=3, callbacks=[MLflow()], learning_rate="cosine").fit(data, Y)
    stand_in.start_run.assert_called_once_with(nested=False)
    assert stand_in.log_params.call_args.args[0]["max_iter"] == 3
    assert stand_in.set_tags.call_args.args[0]["estimator_name"] == "MLPClassifier"
    calls = stand_in.log_metrics.mock_calls
    logged = [(call.args[0]["loss"], call.kwargs["step"]) for call in calls]
    assert logged == [(record.loss, record.epoch) for record in model.history_]
    logged = stand_in.sklearn.log_model.call_args
    inputs, outputs = logged.kwargs["signature"]
    assert list(inputs.columns) == list("abcde")
    assert len(inputs) == len(outputs) == 1
    assert logged.args[0].callbacks is None
    assert model.callbacks is not None


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)  # MLflow's default store is in the current folder.
    module = pytest.importorskip("mlflow")
    before = module.get_tracking_uri()
    module.set_tracking_uri((tmp_path / "store").as_uri())
    yield module
    module.sklearn.autolog(disable=True)
    while module.active_run():
        module.end_run()
    module.set_experiment(experiment_id="0")  # MLflow remembers a page's experiment.
    module.set_tracking_uri(before)


def runs(mlflow) -> list:
    return mlflow.search_runs(output_format="list", order_by=["attributes.start_time ASC"])


def artifacts(mlflow, run) -> set[str]:
    return {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}


def models(mlflow, run) -> list[str]:
    outputs = run.outputs.model_outputs if run.outputs else []
    return [f"models:/{output.model_id}" for output in outputs]


def test_callback_logs_what_autolog_logs_for_scikit_learn(mlflow):
    mlflow.sklearn.autolog(silent=True, log_models=False)  # Models take 10 s each.
    Theirs(max_iter=3, random_state=0).fit(X, Y)
    ours = MLPClassifier(**FEW, early_stopping=True, callbacks=[MLflow()]).fit(X, Y)
    theirs, mine = runs(mlflow)
    assert set(theirs.data.params) <= set(mine.data.params)
    assert mine.data.params["max_iter"] == "3"
    assert mine.data.params["hidden_layer_sizes"] == "(100,)"
    for tag in ("estimator_name", "estimator_class"):
        assert tag in theirs.data.tags
    assert mine.data.tags["estimator_name"] == "MLPClassifier"
    assert mine.data.tags["estimator_class"] == "mlp_xp.estimators.classifier.MLPClassifier"
    assert "estimator.html" in artifacts(mlflow, theirs) & artifacts(mlflow, mine)
    assert len(models(mlflow, mine)) == 1
    assert mine.info.status == "FINISHED"
    client = mlflow.MlflowClient()
    for name in ("loss", "accuracy", "learning_rate", "validation_loss", "validation_score"):
        history = client.get_metric_history(mine.info.run_id, name)
        expected = [(record.epoch, getattr(record, name)) for record in ours.history_]
        assert [(metric.step, metric.value) for metric in history] == expected


@pytest.mark.parametrize("columns", [None, list("abcde")])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_logged_model_makes_the_same_predictions_after_loading(mlflow, kind, columns):
    data = X if columns is None else pd.DataFrame(X, columns=columns)
    model = kind(**FEW, callbacks=[MLflow()]).fit(data, Y)
    (uri,) = models(mlflow, *runs(mlflow))
    loaded = mlflow.sklearn.load_model(uri)
    np.testing.assert_array_equal(loaded.predict(data), model.predict(data))
    assert (loaded.max_iter, loaded.callbacks) == (3, None)
    function = mlflow.pyfunc.load_model(uri)
    np.testing.assert_array_equal(function.predict(data), model.predict(data))
    assert function.metadata.get_input_schema().input_names() == (columns or [0])


def test_the_page_on_logging_records_a_run_and_a_model(mlflow):
    page = Path(__file__).parents[2] / "docs" / "how-to" / "log.md"
    csv_log, callback, own_model = pages.blocks(page.read_text(encoding="utf-8"))
    names = {}
    mlflow.sklearn.autolog(silent=True)
    exec(csv_log.code, names)
    assert runs(mlflow) == []  # Nothing of ours is logged without the callback.
    mlflow.sklearn.autolog(disable=True)
    exec(callback.code, names)
    (run,) = runs(mlflow)
    assert run.data.metrics["validation_score"] > 0.8
    exec(own_model.code.replace("log_model(", "log_model(pip_requirements=[], sk_model="), names)
    *_, uri = models(mlflow, runs(mlflow)[-1])
    X, model = names["X_val"], names["model"]
    np.testing.assert_array_equal(mlflow.sklearn.load_model(uri).predict(X), model.predict(X))


def test_the_active_run_is_used_and_stays_open(mlflow):
    with mlflow.start_run() as run:
        MLPClassifier(**FEW, callbacks=[MLflow(log_model=False)]).fit(X, Y)
        mlflow.log_metric("test_score", 0.5)
        other = MLPClassifier(4, **FEW, callbacks=[MLflow(log_model=False)])
        with pytest.raises(ValueError, match=r"another fit: use MLflow\(nested=True\)"):
            other.fit(X, Y)
    (found,) = runs(mlflow)
    assert found.info.run_id == run.info.run_id
    assert models(mlflow, found) == []
    assert {"loss", "test_score"} <= set(found.data.metrics)


def test_each_fit_of_a_search_has_its_own_run(mlflow):
    model = MLPClassifier(**FEW, callbacks=[MLflow(nested=True, log_model=False)])
    with mlflow.start_run() as run:
        GridSearchCV(model, {"alpha": [0.0, 1.0]}, cv=2).fit(X, Y)
    parent, *fits = runs(mlflow)
    assert parent.info.run_id == run.info.run_id
    assert len(fits) == 5
    assert {fit.data.params["alpha"] for fit in fits} == {"0.0", "1.0"}
    assert {fit.data.tags["mlflow.parentRunId"] for fit in fits} == {run.info.run_id}


def test_a_fit_that_fails_is_marked_and_has_no_model(mlflow, fitted):
    with pytest.raises(KeyboardInterrupt):
        fit(MLflow(), model=fitted, fail=True)
    (run,) = runs(mlflow)
    assert run.info.status == "FAILED"
    assert models(mlflow, run) == []
    assert mlflow.active_run() is None
    assert run.data.metrics["validation_score"] == SCORED[-1].validation_score


def test_a_model_that_skops_cannot_write_is_a_warning(mlflow):
    def scale_up(x, *, xp):
        return 2 * x, lambda dy: 2 * dy

    model = MLPClassifier(activation=scale_up, **FEW, callbacks=[MLflow()])
    with pytest.warns(UserWarning, match="The model was not logged to MLflow: "):
        model.fit(X, Y)
    assert [run.info.status for run in runs(mlflow)] == ["FINISHED"]


def test_autolog_records_our_estimator_in_a_pipeline(mlflow):
    mlflow.sklearn.autolog(silent=True, log_models=False)  # Models take 10 s each.
    model = make_pipeline(MLPClassifier(**FEW)).fit(X, Y)
    (run,) = runs(mlflow)
    assert run.data.params["mlpclassifier__max_iter"] == "3"
    assert run.data.metrics["training_score"] == model.score(X, Y)
