"""Fits recorded by Weights & Biases, offline: no network and no account."""

import copy
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from fake_fit import SCORED, X, Y, fit, record
from sklearn.model_selection import GridSearchCV

from mlp_xp import MLPClassifier
from mlp_xp.augmentation import Mixup
from mlp_xp.callbacks import WandB
from mlp_xp.saving import load_model

FEW = {"max_iter": 3, "learning_rate": "cosine", "random_state": 0}


@pytest.fixture
def stand_in(monkeypatch):
    """Note the calls of the callback where wandb itself is not installed."""
    found = MagicMock(run=None)
    found.Error = type("WandbError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "wandb", found)
    return found


def logged(run) -> list[dict[str, float]]:
    return [call.args[0] for call in run.log.mock_calls]


def test_each_epoch_is_logged_in_a_new_run(stand_in):
    callback = WandB("digits", log_model=False)
    model = MLPClassifier(4, **FEW, augmentation=Mixup(), callbacks=[callback]).fit(X, Y)
    stand_in.init.assert_called_once_with(project="digits", reinit="create_new")
    run = stand_in.init.return_value
    config = run.config.update.call_args.args[0]
    assert (config["estimator"], config["max_iter"]) == ("MLPClassifier", 3)
    assert (config["augmentation"], config["tta"]) == ("Mixup(alpha=0.2)", None)
    for found, row in zip(logged(run), model.history_, strict=True):
        assert (found["epoch"], found["loss"], found["accuracy"]) == row[:3]
        assert "validation_loss" not in found
    run.finish.assert_called_once_with(exit_code=0)
    assert copy.deepcopy(callback).project == "digits"


def test_a_resumed_fit_logs_all_epochs_unless_its_wandb_run_is_resumed(stand_in):
    model = MLPClassifier(4, **FEW).fit(X, Y)
    for is_resumed in (False, True):
        callback, stand_in.run = WandB(log_model=False), MagicMock(resumed=is_resumed)
        callback.on_fit_resume(model)
        callback.on_epoch_end(model, record(4))
        callback.on_fit_end(model)
        found = [row["epoch"] for row in logged(stand_in.run)]
        assert found == ([4] if is_resumed else [1, 2, 3, 4])
        stand_in.run.finish.assert_not_called()


def test_a_fit_that_fails_is_marked_and_has_no_model(stand_in):
    with pytest.raises(KeyboardInterrupt):
        fit(WandB(), model=MLPClassifier(4, **FEW).fit(X, Y), fail=True)
    run = stand_in.init.return_value
    assert len(logged(run)) == len(SCORED)
    run.finish.assert_called_once_with(exit_code=1)
    run.log_artifact.assert_not_called()


def test_without_wandb_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"module 'wandb' is not installed: .*\[wandb\]"):
        MLPClassifier(4, **FEW, callbacks=[WandB()]).fit(X, Y)


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    for name, value in (("MODE", "offline"), ("DIR", str(tmp_path)), ("SILENT", "true")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    module = pytest.importorskip("wandb")
    yield module
    module.teardown()


def test_the_active_run_is_used_and_stays_open(wandb, monkeypatch, tmp_path):
    run, artifacts = wandb.init(project="digits"), []
    monkeypatch.setattr(run, "log_artifact", lambda artifact: artifacts.append(artifact))
    model = MLPClassifier(4, **FEW, early_stopping=True, callbacks=[WandB()]).fit(X, Y)
    assert run.config["hidden_layer_sizes"] == 4
    last, summary = model.history_[-1], run.summary
    names = ("epoch", "loss", "accuracy", "learning_rate", "validation_loss", "validation_score")
    assert [summary[name] for name in names] == [getattr(last, name) for name in names]
    (artifact,) = artifacts
    assert (artifact.type, artifact.name) == ("model", f"MLPClassifier-{run.id}")
    for file in artifact.manifest.entries.values():
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / file.path).write_bytes(Path(file.local_path).read_bytes())
    loaded = load_model(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    with pytest.raises(ValueError, match=r"another fit: use WandB\(new_run=True\)"):
        MLPClassifier(5, **FEW, callbacks=[WandB(log_model=False)]).fit(X, Y)
    run.log({"test_score": 0.5})


def test_each_fit_of_a_search_has_its_own_run(wandb, tmp_path):
    model = MLPClassifier(4, **FEW, callbacks=[WandB(new_run=True)])
    run = wandb.init()
    GridSearchCV(model, {"alpha": [0.0, 1.0]}, cv=2).fit(X, Y)
    assert wandb.run is run
    assert len(list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))) == 6
