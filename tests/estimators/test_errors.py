"""Bad settings and bad input: an error that says what to do, and nothing changed."""

import pickle
import re
import signal
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from helpers import case, problem, small
from scipy import sparse
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.utils._param_validation import InvalidParameterError

from mlp_xp import MLPClassifier, MLPRegressor, get_backend
from mlp_xp.callbacks import Callback
from mlp_xp.nn.losses import Huber

X, y = problem()
MEANT = {  # Wrong values of settings, and what was meant.
    "activation": {"sigmoid": "logistic", "leakyrelu": "leaky_relu"},
    "solver": {"Adam": "adam", "rms_prop": "rmsprop"},
    "learning_rate": {"cosin": "cosine"},
    "backend": {"PyTorch": "torch", "gpu": "auto"},
    "precision": {"fp16": "float16", "bfloat16": "bf16"},
    "input_scaling": {"standard": "standardize"},
    "loss": {"cross_entropy": "log_loss"},
}
STRANGE = [  # Values that are near none, and how the error ends.
    ("activation", 32, "the widths of all layers as a tuple: hidden_layer_sizes=(.., 32)."),
    ("learning_rate", 0.01, "Set the rate itself by learning_rate_init=0.01."),
    ("callbacks", Callback(), "Pass a list, callbacks=[...]."),
    ("solver", "?", "Got '?' instead."),
    ("precision", "float8", ""),
    *((name, True, " instead.") for name in ("learning_rate", "activation")),
    *((name, "gpu", " instead.") for name in ("precision", "placement")),
    *(("solver", "lamb", " instead."), ("backend", "tensorflow", " instead.")),
    *(("momentum", 2.0, " instead."), ("max_iter", 0, " instead.")),
]


def test_invalid_setting_error_suggests_a_value():
    meant = [(n, v, f"Did you mean '{m}'?") for n, pairs in MEANT.items() for v, m in pairs.items()]
    for name, value, hint in meant + STRANGE:
        with case((name, value)), pytest.raises(InvalidParameterError) as caught:
            small(**{name: value}).fit(X, y)
        assert str(caught.value).startswith(f"The '{name}' parameter of MLPClassifier must be")
        assert str(caught.value).endswith(hint), f"{name}={value}: {caught.value}"
    # Names are listed in the order of the documentation.
    with pytest.raises(InvalidParameterError, match="'sgd', 'adam', 'adamw', 'rmsprop', 'lion'"):
        small(solver="?").fit(X, y)
    for theirs, ours in [("mse", "squared_error"), ("MAE", "absolute_error")]:
        with pytest.raises(InvalidParameterError, match=f"Did you mean '{ours}'"):
            MLPRegressor(loss=theirs).fit(X, y)
    for layers in (64, (64, 32)):
        end = re.escape(f"Did you mean hidden_layer_sizes={layers}?")
        with pytest.raises(InvalidParameterError, match=f"{end}$"):
            MLPRegressor(layers).fit(X, y)


@pytest.mark.parametrize(
    ("meant", "names"),
    [
        ("'max_iter'", "epochs n_epochs num_epochs max_epochs n_iter"),
        ("'n_iter_no_change'", "patience early_stopping_rounds"),
        ("'learning_rate_init'", "lr"),
        ("'learning_rate'", "lr_scheduler scheduler"),
        ("'hidden_layer_sizes'", "units hidden_layers hidden_units hidden_dim n_layers layers"),
        ("'solver'", "optimizer"),
        ("'alpha', or solver=mlp_xp.optimizers.AdamW", "weight_decay"),
        ("normalization='batch'", "batch_norm batchnorm use_batch_norm"),
        ("normalization='layer'", "layer_norm"),
        ("'loss'", "criterion objective"),
        ("'scoring'", "metric eval_metric"),
        ("'precision'", "dtype mixed_precision"),
        ("'max_grad_norm'", "clipnorm grad_clip"),
        ("'input_scaling'", "scaler standardize"),
        ("backend='auto'", "gpu"),
    ],
)
def test_parameter_names_of_other_libraries_suggest_ours(meant, names):
    for name in names.split():
        told = f"'{name}'.*: did you mean {meant}"
        with pytest.raises(TypeError, match=told):
            small(**{name: 1})
        with pytest.raises(ValueError, match=told):
            small().set_params(**{name: 1})


def test_keras_validation_data_suggests_x_val_and_y_val():
    with pytest.raises(TypeError, match="'validation_data': pass X_val="):
        small().fit(X, y, validation_data=(X, y))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("callbacks", [3], "callbacks has 3, which has none of the methods"),
        ("callbacks", [Callback], r"the class Callback: pass an instance, Callback"),
        ("loss", Huber, "loss is the class Huber: pass an instance, Huber"),
        ("hidden_layer_sizes", (3.5,), "hidden_layer_sizes must be integers, got"),
        ("hidden_layer_sizes", (3, 0), r"sizes must be > 0, got \[3, 0\]"),
    ],
)
def test_settings_of_the_wrong_type_are_rejected(name, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        small(MLPRegressor, **{name: value}).fit(X, y)


def with_first(value):
    return np.concatenate([[value], X.ravel()[1:]]).reshape(X.shape)


BAD = {
    "nan": (with_first(np.nan), "NaN"),
    "infinity": (with_first(np.inf), "infinity"),
    "complex": (X.astype(complex), "Complex data not supported"),
    "1-D": (X[:, 0], "Expected 2D array, got 1D array"),
    "empty": (X[:0], "minimum of 1|while a minimum"),
    "no features": (X[:, :0], "minimum of 1|while a minimum"),
}


def test_invalid_input_leaves_the_model_unchanged(backend):
    model = small().fit(backend.put(X), y)
    before = pickle.dumps(model)
    for bad, message in BAD.values():
        for array in (bad, backend.put(bad)):
            with pytest.raises(ValueError, match=message):
                model.partial_fit(array, y[: len(bad)])
            with pytest.raises(ValueError, match=message):
                model.predict(array)
            with pytest.raises(ValueError, match=message):
                small().fit(array, y[: len(bad)])
    with pytest.raises(ValueError, match="X has 5 features, but MLPClassifier is expecting 6"):
        model.predict(backend.put(X[:, :5]))
    assert pickle.dumps(model) == before


@pytest.mark.parametrize(
    ("fails", "classes"),
    [(None, [0, 1, 2]), ("network.find_scaling", ["a", "b"]), ("fit.put_sample", ["a", "b"])],
    ids=["labels", "device", "data"],
)
def test_a_failed_fit_leaves_the_model_unchanged(fails, classes, monkeypatch):
    def full(*_, **__):
        raise MemoryError("the device is full")

    model, fresh = small(input_scaling="standardize").fit(X, y), small(input_scaling="standardize")
    before, error = pickle.dumps(model), MemoryError if fails else ValueError
    data = X[:, :3], np.where(y > 0, "a", "b") if fails else y[:-1]
    if fails:
        monkeypatch.setattr(f"mlp_xp.estimators.fitting.{fails}", full)
    with pytest.raises(error):
        model.fit(*data)
    assert pickle.dumps(model) == before
    with pytest.raises(error):
        fresh.partial_fit(*data, classes=classes)
    assert not hasattr(fresh, "classes_")


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_callback_that_fails_before_the_fit_leaves_the_model_unchanged(on, warm_start):
    """The callback fails after it has changed a setting."""

    def begin(model):
        if len(heard) == 1:
            model.max_time = 1.0
            raise OSError("the disk is full")

    settings, heard = {"learning_rate": "cosine", "warm_start": warm_start, **on}, []
    listens = SimpleNamespace(on_fit_end=lambda model: heard.append("end"))
    model = small(**settings, callbacks=[listens, SimpleNamespace(on_fit_begin=begin)]).fit(X, y)
    twin = small(**settings).fit(X, y)
    for each in (model, twin):
        each.partial_fit(X[:30], y[:30])
    before = {k: list(v) if isinstance(v, list) else v for k, v in vars(model).items()}
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


def test_integer_inputs_float_labels_and_weights_can_be_of_any_library(backend):
    integers, here = backend.put((10 * X).astype(np.int64)), backend.put(X)
    assert str(backend.get(small().fit(integers, y).coefs_[0]).dtype) == "float64"
    weights, labels = backend.put(np.ones(len(y))), backend.put(y.astype(float))
    assert 0 <= small().fit(here, labels, weights).score(here, labels, weights) <= 1
    strict = get_backend("array_api_strict", "no_float64")
    narrow = strict.put(X, "float32")
    labels = small().fit(narrow, y.astype(float)).predict(narrow)
    assert labels.dtype == strict.xp.float32


def test_invalid_weights_and_classes_are_rejected():
    model = small().partial_fit(X, y, classes=[0, 1, 2])
    for call, labels, given, message in (
        (small().fit, y, {"sample_weight": np.full(len(y), -1.0)}, "[Nn]egative"),
        (
            small().fit,
            y,
            {"sample_weight": np.full(len(y), 1e307)},
            r"sum of sample_weight must be finite, got weights of up to 1e\+307: type sample_w",
        ),
        (small().partial_fit, y, {}, "classes must be passed on the first call"),
        (model.partial_fit, y, {"classes": [0, 1]}, "is not the same as on last call"),
        (model.partial_fit, y + 7, {}, r"`y` has classes not in `self.classes_`: \[7"),
    ):
        with case(message), pytest.raises(ValueError, match=message):
            call(X, labels, **given)


def test_ctrl_c_keeps_the_partly_trained_model():
    def press(model, record):
        if record.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    model = small(max_iter=1000, callbacks=[SimpleNamespace(on_epoch_end=press)])
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    assert 0 < model.n_iter_ < 1000
    assert model.predict(X).shape == y.shape


def test_multilabel_targets_must_be_0_or_1():
    labels = (X[:, :3] > 0).astype(int)
    model = MLPClassifier(max_iter=2, learning_rate="cosine")
    told = r"y_val has 3 columns .*\[-1, 1\].*\(y_val == 1\)\.astype\(int\)"
    with pytest.raises(ValueError, match=told):
        model.fit(X, labels, X_val=X, y_val=2 * labels - 1)
    for good in (labels > 0, labels.astype(float), np.zeros_like(labels), sparse.csr_array(labels)):
        assert model.fit(X, good).predict(X).shape == (60, 3)


class ReLU:  # Like a module of another library, it is called with one array.
    def __call__(self, x):
        return np.maximum(x, 0)


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize("function", [ReLU(), ReLU, relu])
def test_foreign_activation_function_error_suggests_the_name_to_type(function):
    with pytest.raises((TypeError, ValueError), match="type activation='relu'"):
        small(activation=function).fit(X, y)
    with pytest.raises(ValueError, match=r"unexpected keyword argument 'xp'\.$"):
        small(activation=lambda x: x).fit(X, y)


def test_invalid_scoring_error_suggests_what_to_pass():
    held_out, kind = {"X_val": X, "y_val": y}, small(learning_rate="cosine")
    for name, meant in (("acuracy", "accuracy"), ("los", "loss"), ("f1-macro", "f1_macro")):
        told = rf"^'{name}' is not a valid scoring value.* Did you mean '{meant}'\?$"
        with pytest.raises(ValueError, match=told):
            kind.set_params(scoring=name).fit(X, y, **held_out)
        with pytest.raises(ValueError, match=told):
            small().fit(X, y).evaluate(X, y, metrics=name)
    told = r"accuracy_score does not accept: .* sklearn.metrics.make_scorer\(accuracy_score\)\.$"
    with pytest.raises(TypeError, match=told):
        kind.set_params(scoring=accuracy_score).fit(X, y, **held_out)
    with pytest.raises(TypeError, match=told):
        small().fit(X, y).evaluate(X, y, metrics=accuracy_score)
    kind.set_params(scoring=make_scorer(accuracy_score)).fit(X, y, **held_out)
    assert kind.evaluate(X, y, metrics={"same": make_scorer(accuracy_score)})["same"] <= 1


@pytest.mark.filterwarnings("ignore:torch, which the recipe:UserWarning")
def test_image_recipe_fitted_on_a_table_suggests_the_table_recipe():
    model = MLPClassifier.from_recipe("fashion-mnist", max_iter=1)
    with pytest.raises(ValueError, match=r"784, but .* 6 features.*: from_recipe\('table'\)"):
        model.fit(X, y)
    MLPClassifier.from_recipe("table", max_iter=1, hidden_layer_sizes=8, n_members=1).fit(X, y)


# --- text in X or in the targets of a regressor --------------------------------------------------


def follow(error, X):
    """Return the model that an error says to type, fitted, and its X."""
    names = {"pandas": pandas, "X": X.copy()}
    for line in re.findall(r"X\[\S+ = \S+\(.*?\)", error):
        exec(line, names)
    settings = dict(re.findall(r"(categorical_features|missing_values)='(\w+)'", error))
    return small(batch_size=2, **settings).fit(names["X"], np.arange(len(X)) % 2), names["X"]


def text_error(X):
    with pytest.raises(ValueError, match="could not convert string to float") as caught:
        MLPClassifier().fit(X, np.arange(len(X)) % 2)
    return str(caught.value)


def test_code_in_the_error_about_text_in_x_encodes_it():
    colors = {"size": [1, 2, 3], "color": ["red", "blue", "red"], "shape": [*"oxx"]}
    frame = pandas.DataFrame(colors)
    error = text_error(frame)
    assert "MLPClassifier requires numbers in X. X['color'] and X['shape'] have text" in error
    follow(error, frame)[0].predict(frame.assign(color="green"))
    renamed = frame.set_axis([3, 1, 2], axis=1)
    for texts in (frame.to_numpy(), frame.to_numpy().tolist(), renamed):
        error = text_error(texts)
        assert "convert numbers with text among them" in error
        follow(error, texts if hasattr(texts, "copy") else np.asarray(texts, dtype=object))
    gaps = pandas.DataFrame({"hp": [1.0, None, 2.0, 3.0], "color": [*"abab"]})
    model, X = follow(text_error(gaps), gaps)
    model.predict(X)
    dates = gaps[["hp"]].fillna(0.0).assign(day=pandas.Timestamp("2026-01-01"))
    with pytest.raises(TypeError, match="X has dates, but MLPClassifier requires") as caught:
        small(batch_size=2).fit(dates, [0, 1, 0, 1])
    follow(str(caught.value), dates)
    names = dates[["hp"]].assign(**{"3": 1.0}).rename(columns={"3": 3})
    with pytest.raises(TypeError, match=r"^Feature names are only supported .* X.columns.astype"):
        small(batch_size=2).fit(names, [0, 1, 0, 1])
    for array in (X := gaps[["hp"]], X.to_numpy()):
        with pytest.raises(ValueError, match="contains NaN: set missing_values='impute'") as caught:
            small(batch_size=2).fit(array, [0, 1, 0, 1])
        follow(str(caught.value), array)


@pytest.mark.parametrize("dtype", [str, object, "category"])
def test_code_in_the_error_replaces_question_marks_by_missing_values(dtype):
    strings = pandas.DataFrame({"hp": pandas.Series(["1", "2.5", "?", "4"], dtype=dtype)})
    mixed = pandas.DataFrame({"hp": pandas.Series([1, 2.5, "?", None, "4"], dtype=object)})
    for frame in (strings, mixed):
        error = text_error(frame)
        assert "X['hp'] has text among numbers" in error
        assert "categorical_features" not in error
        model, X = follow(error, frame)
        model.predict(X)
    both = strings.assign(color=["red", "blue", "red", "blue"], digits=[*"1234"], day="2026-01-01")
    error = text_error(both.assign(day=pandas.to_datetime(both["day"])))
    assert "X['digits']" not in error
    assert "X['day']" not in error


def test_errors_about_many_rows_or_columns_stay_short():
    late = pandas.DataFrame({"hp": [*map(str, range(1999)), "?"]}, index=np.arange(2000) / 2)
    assert "X['hp'] has text among numbers" in text_error(late)
    error = text_error(pandas.DataFrame({f"column {i}": ["a", "b"] for i in range(300)}))
    assert "X['column 0'], X['column 1'], X['column 2'] and 297 more have text" in error
    assert len(error) < 500


@pytest.mark.parametrize("name", ["y", "y_val"])
@pytest.mark.parametrize("kind", [str, object, bytes, np.dtypes.StringDType()])
def test_text_in_regression_targets_is_an_error(name, kind):
    def fit(*texts):
        targets = np.resize(np.asarray(texts, dtype=object).astype(kind), len(X))
        validation = {"X_val": X, "y_val": targets} if name == "y_val" else {}
        model = MLPRegressor(max_iter=2, learning_rate="cosine")
        return model.fit(X, y if validation else targets, **validation)

    fit("1", "2.5")
    told = rf"^{name} contains text, e\.g\. b?'a', .*: use MLPClassifier"
    with pytest.raises(ValueError, match=told):
        fit("1", "a")
    for text in ("nan", "inf"):
        with pytest.raises(ValueError, match=rf"^Input {name} contains (NaN|infinity)"):
            fit("1", text)


def test_values_that_overflow_the_precision_of_the_network_are_an_error():
    model = small().fit(X.astype("float32"), y)
    for many in (np.full_like(X, -1e39), sparse.csr_array(X * 1e39)):
        with pytest.raises(ValueError, match=r"too large for dtype\('float32'\) .*='float64'"):
            model.predict(many)


def test_missing_targets_error_names_the_row():
    missing, text = np.where(y > 0, 1.0, np.nan), np.where(y > 0, "a", None)
    told = rf"^Input y_val contains NaN, in row {np.argmin(y > 0)}: .*keep = pandas.notna\(y_val\)"
    numbers = (
        missing,
        [None if v != v else v for v in missing],
        pandas.Series(missing, dtype="Int64"),
    )
    texts = text, pandas.Series(text, dtype="string"), pandas.Series(text, dtype="category")
    for model, kinds in ((MLPRegressor(), numbers), (small(), numbers + texts)):
        for values in kinds:
            with case(values), pytest.raises(ValueError, match=told):
                model.fit(X, y, X_val=X, y_val=values)
    with pytest.raises(ValueError, match=r"^y must be numbers, got datetime64\[D\]: .* to days by"):
        MLPRegressor().fit(X, y.astype("datetime64[D]"))


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_too_large_for_float64_are_named(sign):
    many = np.asarray([[1, 2], [3, sign * 10**400]] * 30, dtype=object)
    table = MLPRegressor(max_iter=2, missing_values="impute")
    size = "a 401-digit integer in row 1"
    for model, given, targets, told in (
        (MLPRegressor(), many, y, f"X has {size}, column 1, too large for float64: correct it"),
        (MLPRegressor(), many.tolist(), y, f"X has {size}, column 1, too large"),
        (MLPRegressor(), X, many[:, 1], f"y has {size}, too large for float64: correct it"),
        (MLPClassifier(), X, many[:, 1], r"y has integers above 2\*\*63 - 1, .*: convert them"),
        (table, pandas.DataFrame({"a": many[:, 1]}), y, rf"X\['a'\] has {size}, too large"),
    ):
        with case(told), pytest.raises(ValueError, match=f"^{told}"):
            model.fit(given, targets)
    texts = pandas.DataFrame({"a": [*map(str, range(59)), "9" * 400]})
    with pytest.raises(ValueError, match=r"has '9+\.\.\.', a 400-digit number too large for"):
        MLPRegressor(categorical_features="from_dtype").fit(texts, y)


@pytest.mark.parametrize("kind", [list, np.asarray, pandas.Series])
def test_error_about_european_numbers_contains_the_conversion(kind):
    numbers = np.linspace(1000.5, 99999.5, len(X))
    texts = [f"{n:,.2f}".translate(str.maketrans(",.", ".,")) for n in numbers]
    with pytest.raises(ValueError, match=r"^y has '1\.000,50' among its numbers") as caught:
        MLPRegressor().fit(X, kind(texts))
    cure = re.search(r"convert them by (.*)\.$", str(caught.value))[1]
    names = {"pandas": pandas, "y": kind(texts)}
    np.testing.assert_allclose(eval(cure, names), numbers, rtol=1e-5)
    frame = pandas.DataFrame({"a": texts, "b": "c"})
    error = text_error(frame)
    assert "X['b'] has text: set categorical_features" in error
    cure = re.search(
        r"X\['a'\] has '1\.000,50' among its numbers: convert them by (.*?\))\. ", error
    )
    found = eval(cure[1], {"pandas": pandas, "X": frame})
    np.testing.assert_allclose(found, numbers, rtol=1e-5)
