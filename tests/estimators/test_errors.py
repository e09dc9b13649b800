"""Bad settings and bad input: an error that says what to do, and nothing changed."""

from __future__ import annotations

import copy
import pickle
import signal
import types
import warnings

import numpy as np
import pytest
from helpers import small
from scipy import sparse
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

import mlp_xp
from mlp_xp import MLP, MLPClassifier, MLPRegressor, get_backend
from mlp_xp.callbacks import Callback
from mlp_xp.nn.losses import Huber


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "sigmoid"}, "'activation' parameter of MLPClassifier must be a str among"),
        ({"solver": "lamb"}, "'solver' parameter"),
        ({"learning_rate": "straight"}, "'learning_rate' parameter"),
        ({"backend": "tensorflow"}, "'backend' parameter"),
        ({"precision": "float8"}, "'precision' parameter"),
        ({"placement": "gpu"}, "'placement' parameter"),
        ({"momentum": 2.0}, "'momentum' parameter"),
        ({"max_iter": 0}, "'max_iter' parameter"),
    ],
)
def test_bad_settings(problem, settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        small(**settings).fit(*problem())


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"activation": "sigmoid"}, "Did you mean 'logistic'?"),
        ({"activation": "leakyrelu"}, "Did you mean 'leaky_relu'?"),
        ({"activation": 32}, "several layers are one tuple: hidden_layer_sizes=(.., 32)."),
        ({"solver": "Adam"}, "Did you mean 'adam'?"),
        ({"solver": "rms_prop"}, "Did you mean 'rmsprop'?"),
        ({"learning_rate": "cosin"}, "Did you mean 'cosine'?"),
        ({"learning_rate": 0.01}, "The rate itself is learning_rate_init=0.01."),
        ({"backend": "PyTorch"}, "Did you mean 'torch'?"),
        ({"backend": "gpu"}, "Did you mean 'auto'?"),
        ({"precision": "fp16"}, "Did you mean 'float16'?"),
        ({"precision": "bfloat16"}, "Did you mean 'bf16'?"),
        ({"input_scaling": "standard"}, "Did you mean 'standardize'?"),
        ({"loss": "cross_entropy"}, "Did you mean 'log_loss'?"),
        ({"precision": "gpu"}, " instead."),
        ({"placement": "cuda"}, " instead."),
        ({"learning_rate": True}, " instead."),
        ({"activation": True}, " instead."),
        ({"callbacks": Callback()}, "Give a list, callbacks=[...]."),
    ],
)
def test_a_wrong_setting_is_told_what_to_type(problem, settings, hint):
    with pytest.raises(InvalidParameterError) as caught:
        small(**settings).fit(*problem())
    assert str(caught.value).endswith(hint)


def test_names_are_listed_in_the_order_of_the_documentation(problem):
    with pytest.raises(InvalidParameterError, match="'sgd', 'adam', 'adamw', 'rmsprop', 'lion'"):
        small(solver="?").fit(*problem())
    with pytest.raises(InvalidParameterError, match=r"Got '\?' instead\.$"):
        small(solver="?").fit(*problem())


def test_names_of_other_libraries_are_known_for_losses_of_numbers(problem):
    X, y = problem()
    for theirs, ours in [("mse", "squared_error"), ("MAE", "absolute_error")]:
        with pytest.raises(InvalidParameterError, match=f"Did you mean '{ours}'"):
            MLPRegressor(loss=theirs).fit(X, y)


def test_hidden_layers_must_be_at_least_1_wide(problem):
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must be > 0, got \[3, 0\]"):
        small(hidden_layer_sizes=(3, 0)).fit(*problem())


def test_what_is_no_callback_and_no_width_is_rejected(problem):
    with pytest.raises(TypeError, match="callbacks has 3, which has none of the methods"):
        small(callbacks=[3]).fit(*problem())
    with pytest.raises(TypeError, match=r"is a class: give an object, with \(\)"):
        small(callbacks=[Callback]).fit(*problem())
    with pytest.raises(ValueError, match="hidden_layer_sizes must be integers, got"):
        small(hidden_layer_sizes=(3.5,)).fit(*problem())
    with pytest.raises(TypeError, match=r"loss is the class Huber: give an object, with \(\)"):
        MLPRegressor(loss=Huber).fit(*problem())


def spoiled(X, how):
    X = X.copy()
    if how == "nan":
        X[0, 0] = np.nan
    elif how == "infinity":
        X[0, 0] = np.inf
    elif how == "complex":
        X = X.astype(complex)
    elif how == "1-D":
        X = X[:, 0]
    elif how == "empty":
        X = X[:0]
    elif how == "no features":
        X = X[:, :0]
    return X


BAD = {
    "nan": "NaN",
    "infinity": "infinity",
    "complex": "Complex data not supported",
    "1-D": "Expected 2D array, got 1D array",
    "empty": "minimum of 1|while a minimum",
    "no features": "minimum of 1|while a minimum",
}


@pytest.mark.parametrize("how", BAD)
def test_bad_input_changes_nothing(problem, backend, how):
    X, y = problem()
    bad = spoiled(X, how)
    bad_y = y[: len(bad)]
    model = small().fit(backend.put(X), y)
    before = pickle.dumps(model)
    for array in (bad, backend.put(bad)):
        with pytest.raises(ValueError, match=BAD[how]):
            model.partial_fit(array, bad_y)
        with pytest.raises(ValueError, match=BAD[how]):
            model.predict(array)
        with pytest.raises(ValueError, match=BAD[how]):
            small().fit(array, bad_y)
    assert pickle.dumps(model) == before


@pytest.mark.parametrize("how", ["labels", "device", "data"])
def test_a_fit_that_fails_leaves_the_model_as_it_was(problem, how, monkeypatch):
    X, y = problem()
    model = small(input_scaling="standardize").fit(X, y)
    before = pickle.dumps(model)
    arguments = (X[:, :3], y[:-1] if how == "labels" else np.where(y > 0, "a", "b"))

    def full(*_, **__):
        raise MemoryError("the device is full")

    if how == "data":
        monkeypatch.setattr(mlp_xp.estimators.fitting, "place", full)
    if how == "device":
        monkeypatch.setattr(mlp_xp.estimators.fitting, "find_scaling", full)
    with pytest.raises((ValueError, MemoryError)):
        model.fit(*arguments)
    assert pickle.dumps(model) == before
    fresh = small(input_scaling="standardize")
    with pytest.raises((ValueError, MemoryError)):
        fresh.partial_fit(*arguments, classes=[0, 1, 2] if how == "labels" else ["a", "b"])
    assert not hasattr(fresh, "classes_")


class Refuses(Callback):
    """A callback that is not ready, and has changed a setting by then."""

    def __init__(self):
        self.on = False

    def on_fit_begin(self, model):
        if self.on:
            model.max_time = 1.0
            raise OSError("the disk is full")


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_callback_that_fails_before_the_fit_changes_nothing(problem, backend, warm_start):
    X, y = problem()
    settings = {"learning_rate": "cosine", "warm_start": warm_start, "backend": backend.name}
    refuses, heard = Refuses(), []
    listens = types.SimpleNamespace(on_fit_end=lambda model: heard.append("end"))
    model = small(**settings, callbacks=[listens, refuses], device=backend.device).fit(X, y)
    twin = small(**settings, device=backend.device).fit(X, y)
    for each in (model, twin):
        each.partial_fit(X[:30], y[:30])
    before = {k: list(v) if isinstance(v, list) else v for k, v in vars(model).items()}
    refuses.on = True
    with pytest.raises(OSError, match="the disk is full"):
        model.fit(2.0 * X, y)
    assert heard == ["end", "end"]
    assert vars(model).keys() == before.keys()
    for name in set(before) - {"_trainer", "callbacks"}:
        np.testing.assert_equal(getattr(model, name), before[name], err_msg=name)
    for each in (model, twin):
        each.partial_fit(X, y)
    assert model.history_[-1].learning_rate == twin.history_[-1].learning_rate
    np.testing.assert_array_equal(model.predict_proba(X), twin.predict_proba(X))


def test_a_loss_that_explodes_ends_the_fit_with_an_error(problem, backend):
    X, y = problem()
    model = small(solver="sgd", learning_rate_init=1e30, max_iter=50)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(ValueError, match=r"smaller learning_rate_init\. First seen"):
            model.fit(backend.put(X), y)
    assert model.n_iter_ < 50


def test_a_copy_is_not_changed_by_training_the_original(problem):
    X, y = problem()
    model = small().fit(X, y)
    twin = copy.copy(model)
    before = twin.predict_proba(X)
    model.partial_fit(X, y)
    np.testing.assert_array_equal(twin.predict_proba(X), before)


def test_integers_are_computed_in_double_on_every_library(problem, backend):
    X, y = problem()
    X = (10 * X).astype(np.int64)
    assert str(backend.get(small().fit(backend.put(X), y).coefs_[0]).dtype) == "float64"


def test_float_labels_and_weights_of_any_library(problem, backend):
    X, y = problem()
    weights = backend.put(np.ones(len(y)))
    model = small().fit(backend.put(X), backend.put(y.astype(float)), weights)
    assert 0 <= model.score(backend.put(X), backend.put(y.astype(float)), weights) <= 1
    strict = get_backend("array_api_strict", "no_float64")
    labels = small().fit(X, y.astype(float)).predict(strict.put(X, "float32"))
    assert labels.dtype == strict.xp.float32


def test_a_wrong_number_of_features(problem, backend):
    X, y = problem()
    model = small().fit(backend.put(X), y)
    with pytest.raises(ValueError, match="X has 5 features, but MLPClassifier is expecting 6"):
        model.predict(backend.put(X[:, :5]))


def test_wrong_labels_and_weights(problem):
    X, y = problem()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        small().fit(X, y[:-1])
    with pytest.raises(ValueError, match="Unknown label type"):
        small().fit(X, y + 0.5)
    with pytest.raises(ValueError, match="y is None"):
        small().fit(X, None)
    with pytest.warns(DataConversionWarning, match="column-vector"):
        small().fit(X, y[:, None])
    with pytest.raises(ValueError, match=r"sample_weight\.shape"):
        small().fit(X, y, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        small().fit(X, y, sample_weight=np.full(len(y), -1.0))
    with pytest.raises(ValueError, match=r"zero|is 0 for all samples"):
        small().fit(X, y, sample_weight=np.zeros(len(y)))


def test_partial_fit_wants_all_classes_once(problem):
    X, y = problem()
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        small().partial_fit(X, y)
    model = small().partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="is not the same as on last call"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`: \[7\]"):
        model.partial_fit(X, np.full(len(y), 7))


def test_prediction_before_fitting():
    with pytest.raises(NotFittedError):
        MLP().predict([[1.0]])


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_keeps_the_model_so_far(problem):
    class PressCtrlC(Callback):
        def on_epoch_end(self, model, record):
            if record.epoch == 2:
                signal.raise_signal(signal.SIGINT)

    X, y = problem()
    model = small(max_iter=100_000, batch_size=1, callbacks=[PressCtrlC()])
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    assert 0 < model.n_iter_ < 100_000
    assert model.predict(X).shape == y.shape


def test_the_short_name_is_the_class():
    assert MLP is MLPClassifier
    assert mlp_xp.__version__


@pytest.mark.parametrize("low", [-1, 1, 2])
def test_several_classes_at_once_are_0_and_1(low):
    X = np.random.default_rng(0).standard_normal((30, 4))
    y = (X[:, :3] > 0).astype(int)
    model = MLPClassifier(max_iter=2, learning_rate="cosine")
    shifted = np.where(y, low + (2 if low < 0 else 1), low)
    with pytest.raises(
        ValueError, match=rf"y has 3 columns .*\[{low}, .*\(y == \d\)\.astype\(int\)"
    ):
        model.fit(X, shifted)
    with pytest.raises(ValueError, match="y_val has 3 columns with the values"):
        model.fit(X, y, X_val=X, y_val=shifted)
    for good in (y > 0, y.astype(float), np.zeros_like(y), sparse.csr_matrix(y)):
        assert model.fit(X, good).predict(X).shape == (30, 3)
