"""All callbacks can be copied and outlive an interrupted fit; one of them ends it at a score."""

import copy
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from fake_fit import SCORED, X, Y, fit, record
from helpers import names
from sklearn.base import clone

from mlp_xp import MLPClassifier, MLPRegressor, callbacks
from mlp_xp.callbacks import TargetScore
from mlp_xp.datasets import load_digits
from mlp_xp.saving import load_model

MAKE = {
    "Callback": lambda folder: callbacks.Callback(),  # The base does and stops nothing.
    "ProgressBar": lambda folder: callbacks.ProgressBar(),
    "Checkpoint": lambda folder: callbacks.Checkpoint(folder / "checkpoints", every=2),
    "TargetScore": lambda folder: callbacks.TargetScore(2.0),
    "CSVLog": lambda folder: callbacks.CSVLog(folder / "log.csv"),
    "TensorBoard": lambda folder: callbacks.TensorBoard(folder / "events"),
}
NAMES = [*list(MAKE)[:-1], pytest.param("TensorBoard", marks=pytest.mark.matrix)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["deepcopy", "clone", "pickle"])
def test_copies_made_before_during_and_after_a_fit_work(name, how, tmp_path, fitted):
    copied = {
        "deepcopy": copy.deepcopy,
        "clone": lambda callback: clone(callback, safe=False),
        "pickle": lambda callback: pickle.loads(pickle.dumps(callback)),  # noqa: S301
    }[how]
    original = MAKE[name](tmp_path)
    copies = [copied(original)]
    original.on_fit_begin(fitted)
    for row in SCORED:
        original.on_step_end(fitted, 1, 1)
        original.on_epoch_end(fitted, row)
        copies.append(copied(original))
    original.on_fit_end(fitted)
    copies.append(copied(original))
    for callback in [*copies, original]:
        assert type(callback) is type(original)
        assert fit(callback, model=fitted) == [4, 4, 4]


@pytest.mark.parametrize("name", NAMES)
def test_callbacks_leave_nothing_open_after_an_interrupted_fit(name, tmp_path, fitted, terminal):
    terminal()
    callback = MAKE[name](tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(callback, model=fitted, fail=True)
    callback.on_fit_end(fitted)  # once more does no harm
    # Open resources cannot be pickled, and nothing else may be left out.
    state = vars(callback)
    assert pickle.loads(pickle.dumps(state)) == state  # noqa: S301
    assert fit(callback, model=fitted) == [4, 4, 4]


@pytest.mark.parametrize("others", [[], pytest.param(["TensorBoard"], marks=pytest.mark.matrix)])
def test_an_estimator_calls_its_callbacks(tmp_path, capsys, others):
    watch = [MAKE[name](tmp_path) for name in ["ProgressBar", "Checkpoint", "CSVLog", *others]]
    model = MLPClassifier((4,), max_iter=3, learning_rate="cosine", callbacks=watch)
    clone(model).fit(X, Y)
    model.fit(X, Y)
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert names(tmp_path / "checkpoints") == ["best", "epoch-0002"]
    assert load_model(tmp_path / "checkpoints" / "epoch-0002").n_iter_ == 2
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4
    if others:
        assert len(list((tmp_path / "events").iterdir())) == 2
    saved = pickle.loads(pickle.dumps(model))  # noqa: S301
    np.testing.assert_array_equal(saved.predict(X), model.predict(X))


def test_regressors_record_no_accuracy_even_if_a_callback_wants_it():
    class Accuracy(callbacks.Callback):
        wants_accuracy = True

    few = {"max_iter": 2, "learning_rate": "cosine", "callbacks": [Accuracy()]}
    assert [record.accuracy for record in MLPRegressor(**few).fit(X, Y).history_] == [None, None]
    assert all(record.accuracy is not None for record in MLPClassifier(**few).fit(X, Y).history_)


@pytest.mark.parametrize("hook", [n for n in vars(callbacks.Callback) if n.startswith("on_")])
def test_an_object_with_any_hook_is_a_callback(hook):
    model = MLPClassifier((4,), max_iter=1, n_iter_no_change=np.inf)
    model.set_params(callbacks=[SimpleNamespace(**{hook: lambda *_: None})])
    assert model.fit(X, Y).n_iter_ == 1


def test_repr_of_callbacks_and_data_sets_is_one_line():
    assert repr(callbacks.ProgressBar()) == "ProgressBar()"
    assert repr(callbacks.ProgressBar(curve=True)) == "ProgressBar(curve=True)"
    assert repr(callbacks.TargetScore(0.9)) == "TargetScore(score=0.9)"
    assert repr(callbacks.Checkpoint("here", every="10 min")).endswith("every='10 min')")
    digits = "Dataset(1,438 training and 359 test images of 1 x 8 x 8, 10 classes)"
    assert repr(load_digits()) == digits


def test_target_score_ends_the_fit_and_requires_validation_scores():
    rows = [record(i + 1, validation_score=s) for i, s in enumerate([0.5, 0.79, 0.8, 0.9])]
    assert fit(TargetScore(0.8), rows) == [4, 4, 4]
    with pytest.raises(ValueError, match=r"TargetScore\(0.9\).*X_val.*early_stopping=True"):
        fit(TargetScore(0.9), [record(1)])


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.9", None])
def test_target_score_must_be_a_finite_number(value):
    with pytest.raises(ValueError, match=f"`score` must be a finite number, got {value!r}"):
        TargetScore(value)
