"""The calls of MLflow's callback, noted by a stand-in, where MLflow itself is not installed."""

import sys
from types import ModuleType
from unittest.mock import MagicMock

import pandas as pd
import pytest
from fake_fit import X, Y

from mlp_xp import MLPClassifier
from mlp_xp.callbacks import MLflow


@pytest.fixture
def mlflow(monkeypatch):
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


def test_a_fit_is_a_run_with_parameters_epochs_and_a_model_whose_columns_have_names(mlflow):
    data = pd.DataFrame(X, columns=list("abcde"))
    model = MLPClassifier(max_iter=3, callbacks=[MLflow()], learning_rate="cosine").fit(data, Y)
    mlflow.start_run.assert_called_once_with(nested=False)
    assert mlflow.log_params.call_args.args[0]["max_iter"] == 3
    assert mlflow.set_tags.call_args.args[0]["estimator_name"] == "MLPClassifier"
    logged = [(call.args[0]["loss"], call.kwargs["step"]) for call in mlflow.log_metrics.mock_calls]
    assert logged == [(record.loss, record.epoch) for record in model.history_]
    logged = mlflow.sklearn.log_model.call_args
    inputs, outputs = logged.kwargs["signature"]
    assert list(inputs.columns) == list("abcde")
    assert len(inputs) == len(outputs) == 1
    assert logged.args[0].callbacks is None
    assert model.callbacks is not None
