"""Saved models come back as they were, and nothing else comes back at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.callbacks import Callback
from mlp_xp.estimators.state import fitted_state
from mlp_xp.nn.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    BinaryFocal,
    Custom,
    Huber,
    Poisson,
    Quantile,
    SoftmaxCrossEntropy,
    SoftmaxFocal,
    SquaredError,
    Through,
)
from mlp_xp.optimizers import SGD, Adam, AdamW, BetaLasso, ByKind, Lion, Muon, RMSprop
from mlp_xp.optimizers.schedules import Constant, Cosine, InvScaling, Linear, LinearWarmup, OneCycle
from mlp_xp.saving import SavingError, check_can_save, load_model, replacing, save_model
from mlp_xp.saving._json import decode, encode

X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
CODES = np.arange(60) % 3
SEVERAL = (np.arange(60)[:, None] // (1, 2, 4)) % 2
VALUES = X[:, :2] * 2 + 1
SETTINGS = {"max_iter": 3, "n_iter_no_change": math.inf, "random_state": 0}


def fitted(y=CODES, X=X, **params) -> MLPClassifier:
    return MLPClassifier((7, 4), **(SETTINGS | params)).fit(X, y)


def regressor(y=VALUES, X=X, **params) -> MLPRegressor:
    return MLPRegressor(**(SETTINGS | {"hidden_layer_sizes": (7, 4)} | params)).fit(X, y)


def assert_same(loaded, saved, name: str) -> None:
    """Check that two values are of the same types and bits throughout."""
    assert type(loaded) is type(saved), name
    if isinstance(saved, np.ndarray):
        assert (loaded.dtype, loaded.shape) == (saved.dtype, saved.shape), name
        if saved.dtype == object:
            assert loaded.tolist() == saved.tolist(), name
        else:
            assert loaded.tobytes() == saved.tobytes(), name
    elif isinstance(saved, list | tuple):
        assert len(loaded) == len(saved), name
        for i, pair in enumerate(zip(loaded, saved, strict=True)):
            assert_same(*pair, f"{name}[{i}]")
    elif isinstance(saved, dict):
        assert_same(list(loaded.items()), list(saved.items()), name)
    else:
        assert loaded == saved or loaded != loaded != saved != saved, name


def assert_all_comes_back(model, folder) -> None:
    """Check every attribute but those that are documented to stay out."""
    save_model(model, folder)
    loaded = load_model(folder)
    mine, theirs = (
        {name: value for name, value in vars(each).items() if not name.startswith("_")}
        for each in (model, loaded)
    )
    assert mine.keys() == theirs.keys()
    for name in mine.keys() - {"callbacks"}:
        assert_same(theirs[name], mine[name], name)
    assert loaded.callbacks is None
    before, after = fitted_state(model), fitted_state(loaded)
    for name in ("network", "loss", "input_scaling", "scaling", "dtype", "seed"):
        assert_same(getattr(after, name), getattr(before, name), name)
    for name in ("kind", "classes", "output", "is_sparse"):
        assert_same(getattr(after.targets, name), getattr(before.targets, name), name)


@pytest.mark.parametrize(
    "y",
    [
        CODES,
        CODES - 7,
        CODES.astype(np.uint8),
        CODES.astype(np.float32),
        CODES > 0,
        np.asarray(["ant", "bee", "é ü"])[CODES],
        np.asarray(["ant", "bee", "cat"], dtype=object)[CODES],
        np.asarray(["no", "yes"])[CODES % 2],
        np.zeros(60, dtype=int),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("input_scaling", [None, "standardize"])
def test_a_loaded_model_predicts_the_same_bits(y, dtype, input_scaling, tmp_path):
    data = X.astype(dtype)
    model = fitted(y, data, input_scaling=input_scaling)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.predict_proba(data).tobytes() == model.predict_proba(data).tobytes()
    assert loaded.predict(data).dtype == model.predict(data).dtype
    np.testing.assert_array_equal(loaded.predict(data), model.predict(data))


@pytest.mark.parametrize(
    ("make", "y", "params"),
    [
        (fitted, CODES, {}),
        (
            fitted,
            CODES,
            {
                "solver": AdamW(weight_decay=0.05),
                "learning_rate": LinearWarmup(0.2, LinearWarmup(0.1, Cosine(0.1))),
                "batch_size": 20,
                "random_state": 3,
                "backend": "numpy",
                "class_weight": {0: 1.0, 1: 2, 2: 0.5},
                "scoring": "neg_log_loss",
                "label_smoothing": 0.1,
            },
        ),
        (
            fitted,
            CODES,
            {
                "hidden_layer_sizes": [7, 7, 4],
                "activation": ["gelu", "tanh", "relu"],
                "dropout": (0.1, 0, 0.2),
                "input_dropout": 0.1,
                "normalization": "batch",
                "residual": True,
                "early_stopping": True,
                "ema_decay": 0.9,
                "max_grad_norm": 1.0,
                "input_scaling": "standardize",
            },
        ),
        (fitted, SEVERAL, {"normalization": "layer", "loss": "focal", "random_state": None}),
        (fitted, SEVERAL, {"early_stopping": True, "loss": BinaryFocal(1.5)}),
        (fitted, CODES % 2, {"output_activation": "softmax", "solver": Muon(ns_steps=4)}),
        (fitted, CODES, {"output_activation": "logistic", "loss": BinaryCrossEntropy(0.2)}),
        (
            fitted,
            np.asarray(["inf", "nan", "x"])[CODES],
            {"class_weight": {"nan": 1.5, "x": 2, "inf": 0.5}, "solver": "sgd"},
        ),
        (fitted, CODES, {"solver": "lbfgs", "hidden_layer_sizes": ()}),
        (regressor, VALUES, {}),
        (regressor, VALUES[:, 0], {"loss": Through(Huber(2.0), "softplus")}),
        (
            regressor,
            VALUES,
            {
                "hidden_layer_sizes": (7, 7),
                "normalization": "batch",
                "residual": True,
                "early_stopping": True,
                "validation_fraction": 0.2,
                "learning_rate": "adaptive",
                "output_activation": "tanh",
                "loss": "quantile",
            },
        ),
        (regressor, np.abs(VALUES), {"loss": "poisson", "solver": Lion(weight_decay=0.1)}),
        (regressor, VALUES, {"solver": "lbfgs", "normalization": "layer"}),
        (regressor, VALUES, {"solver": "lbfgs", "tol": 1e9}),  # Of no iterations.
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_everything_learned_and_set_comes_back(make, y, params, dtype, tmp_path):
    if "hidden_layer_sizes" in params and make is fitted:
        model = MLPClassifier(**(SETTINGS | params)).fit(X.astype(dtype), y)
    else:
        model = make(y, X.astype(dtype), **params)
    assert_all_comes_back(model, tmp_path / "new" / "folder")
    loaded = load_model(tmp_path / "new" / "folder")
    for method in ("predict", "predict_proba", "hidden_activations"):
        if hasattr(model, method) and (method != "hidden_activations" or model.n_layers_ > 2):
            expected = getattr(model, method)(X.astype(dtype))
            assert_same(getattr(loaded, method)(X.astype(dtype)), expected, method)
    scores = model.evaluate(X.astype(dtype), y)
    assert_same(loaded.evaluate(X.astype(dtype), y), scores, "evaluate")


def test_held_out_data_of_the_caller_and_column_names_come_back(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = MLPRegressor(**SETTINGS).fit(frame, VALUES, X_val=frame, y_val=VALUES)
    assert len(model.validation_loss_curve_) == 3
    assert_all_comes_back(model, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("solver", rule) for rule in (SGD(0.5, False), Adam(), AdamW(), RMSprop(momentum=0.5))),
        *(("solver", rule) for rule in (Lion(), Muon(scale="original"), Adam(np.float64(0.5)))),
        *(("solver", rule) for rule in (BetaLasso(beta=2.0), ByKind(), ByKind(Lion(), SGD(0.5)))),
        ("solver", ByKind(vector=SGD(momentum=0.5), head=Muon(ns_steps=3), head_rate=0.5)),
        *(("learning_rate", rule) for rule in (Constant(), InvScaling(0.3), Cosine(0.2))),
        *(("learning_rate", rule) for rule in (OneCycle(0.2, 10, 100), LinearWarmup())),
        *(("learning_rate", rule) for rule in (Linear(0.1), LinearWarmup(then=Linear()))),
        *(("loss", loss) for loss in (SoftmaxCrossEntropy(0.1), SoftmaxFocal(1.0))),
        ("hidden_layer_sizes", [7]),
        ("class_weight", "balanced"),
        ("n_iter_no_change", 5),
    ],
)
def test_parameters_of_a_classifier_come_back(name, value, tmp_path):
    model = MLPClassifier(**(SETTINGS | {"hidden_layer_sizes": (7,), name: value})).fit(X, CODES)
    assert_all_comes_back(model, tmp_path)


@pytest.mark.parametrize(
    "loss",
    [
        SquaredError(),
        AbsoluteError(),
        Huber(0.5),
        Quantile(0.9),
        Poisson(),
        Through(Quantile(0.1), "exp"),
    ],
)
def test_losses_of_a_regressor_come_back(loss, tmp_path):
    assert_all_comes_back(regressor(np.abs(VALUES), loss=loss), tmp_path)


@pytest.mark.parametrize("value", [[AdamW(), 3], (Muon(ns_steps=2), "sgd")])
def test_objects_come_back_in_a_list_too(value):
    form = json.loads(json.dumps(encode("solver", value, "solver")))
    assert decode(form, "solver") == value
    with pytest.raises(ValueError, match=r"dropout is '(AdamW|Muon)', not one of none"):
        decode(form, "dropout")


def test_numbers_of_numpy_become_plain_ones(tmp_path):
    weights = {np.int64(0): np.float32(0.5), np.int64(1): 1.0, np.int64(2): 1.0}
    model = fitted(batch_size=np.int64(20), class_weight=weights, random_state=np.int64(3))
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.get_params() == model.get_params()
    assert [type(key) for key in loaded.class_weight] == [int] * 3


def test_callbacks_are_left_out(tmp_path):
    class Saves(Callback):
        def on_epoch_end(self, model, record):
            save_model(model, tmp_path / str(record.epoch))

    model = fitted(callbacks=[Saves()])
    for epoch in (1, 2, 3):
        loaded = load_model(tmp_path / str(epoch))
        assert loaded.callbacks is None
        assert loaded.history_ == model.history_[:epoch]
    assert_all_comes_back(model, tmp_path)


def test_a_network_of_no_epochs_comes_back(tmp_path):
    class Fails(Callback):
        def on_step_end(self, model, done, n_steps):
            raise RuntimeError("stop")

    model = MLPClassifier((7,), random_state=0, callbacks=[Fails()])
    with pytest.raises(RuntimeError, match="stop"):
        model.fit(X, CODES)
    assert not hasattr(model, "loss_")
    assert_all_comes_back(model, tmp_path)


def test_a_subclass_comes_back_as_what_it_is_made_from(tmp_path):
    class Mine(MLPRegressor):
        pass

    model = Mine(**SETTINGS).fit(X, VALUES)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is MLPRegressor
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()


def test_a_loaded_model_begins_its_schedule_anew(tmp_path):
    model = fitted(learning_rate="cosine")
    save_model(model, tmp_path)
    loaded = load_model(tmp_path).set_params(batch_size=len(X))
    loaded.partial_fit(X, CODES)
    assert loaded.history_[-1].learning_rate == model.learning_rate_init


@pytest.mark.parametrize("solver", [SGD(momentum=0.0), Adam()])
@pytest.mark.parametrize("make", [fitted, regressor])
def test_a_loaded_model_goes_on_training(make, solver, tmp_path):
    model = make(solver=solver)
    y = CODES if make is fitted else VALUES
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    loaded.partial_fit(X, y)
    assert loaded.n_iter_ == model.n_iter_ + 1
    assert [record.epoch for record in loaded.history_] == [1, 2, 3, 4]
    assert not np.array_equal(loaded.coefs_[0], model.coefs_[0])
    if solver.n_slots == 0:  # With no slots to lose, it goes on as if nothing had been saved.
        model.partial_fit(X, y)
        assert_same(loaded.coefs_, model.coefs_, "coefs_")
    loaded.set_params(warm_start=True).fit(X, y)


def test_a_random_state_object_becomes_the_seed_that_it_gave(tmp_path):
    model = fitted(random_state=np.random.RandomState(5))
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.random_state == fitted_state(loaded).seed == fitted_state(model).seed
    again = load_model(tmp_path).fit(X, CODES)
    np.testing.assert_array_equal(again.coefs_[0], loaded.fit(X, CODES).coefs_[0])


def test_column_names_come_back(tmp_path):
    model = fitted()
    model.feature_names_in_ = np.asarray(list("abcde"), dtype=object)
    assert_all_comes_back(model, tmp_path)
    assert load_model(tmp_path).feature_names_in_.tolist() == list("abcde")


def test_a_history_of_numbers_that_are_not_finite_comes_back(tmp_path):
    model = fitted()
    model.loss_curve_ = [np.float64(value) for value in (1.0, math.inf, math.nan)]
    model.loss_, model.best_loss_ = np.float64(math.nan), np.float64(1.0)
    model.validation_scores_, model.best_validation_score_ = [0.5, math.nan], -math.inf
    assert_all_comes_back(model, tmp_path)


def test_arrays_that_are_not_in_c_order_are_saved_right(tmp_path):
    model = fitted()
    expected = [W.copy() for W in model.coefs_]
    model.coefs_ = [np.asfortranarray(expected[0]), expected[1][::-1][::-1], expected[2].T.copy().T]
    assert not model.coefs_[0].flags.c_contiguous
    save_model(model, tmp_path)
    for loaded, W in zip(load_model(tmp_path).coefs_, expected, strict=True):
        np.testing.assert_array_equal(loaded, W)


def test_what_any_backend_fitted_opens_as_numpy(backend, tmp_path):
    with backend.scope():
        model = MLPClassifier((7,), max_iter=2, random_state=0, n_iter_no_change=math.inf)
        model.set_params(backend=backend.name, device=backend.device).fit(X, CODES)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.backend == backend.name
    assert all(isinstance(array, np.ndarray) for array in (*loaded.coefs_, *loaded.intercepts_))
    loaded.set_params(backend="numpy", device=None)
    np.testing.assert_allclose(loaded.predict_proba(X), model.predict_proba(X), rtol=1e-4)


# --- what must not be saved or loaded ------------------------------------------------------------


def test_an_unfitted_model_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        save_model(MLPClassifier(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_rule_of_somebody_else_is_refused(tmp_path):
    class Mine(SGD):
        pass

    with pytest.raises(SavingError, match=r"solver is .*Mine.* no JSON form: use a string"):
        save_model(fitted(solver=Mine()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def my_activation(x, *, xp):
    return x * x, lambda dy: 2.0 * x * dy


def my_loss(outputs, targets, *, xp):
    error = outputs - targets
    return xp.sum(error * error, axis=-1), lambda dlosses: 2.0 * error * dlosses[..., None]


def my_score(model, X, y):
    return 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"activation": my_activation}, r"activation is .*my_activation.* pickle or joblib"),
        ({"activation": ["relu", my_activation]}, r"activation is .*my_activation"),
        ({"loss": my_loss}, r"loss is .*my_loss.* pickle or joblib"),
        ({"loss": Custom(my_loss, "exp")}, r"loss is Custom\(.* mlp_xp\.nn\.losses"),
        ({"scoring": my_score}, r"scoring is .*my_score.*set_params\(scoring=None\)"),
    ],
)
def test_functions_of_the_user_are_refused(params, message, tmp_path):
    with pytest.raises(SavingError, match=message):
        save_model(regressor(**params), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"residual": True}, r"the fit had Network\(.*residual=False.* they say .*residual=True"),
        ({"hidden_layer_sizes": (6,)}, r"the fit had Network\(.* they say Network\(.*6, 2\)"),
        ({"input_scaling": "standardize"}, "the fit had None, and they say 'standardize'"),
        ({"precision": "float64"}, "the fit had 'float32', and they say 'float64'"),
        ({"loss": "huber"}, r"had SquaredError\(\), and they say Huber\(delta=1\.0\); set them"),
        ({"output_activation": "exp"}, "out_activation is 'identity', and params make it 'exp'"),
        ({"alpha": -1.0}, "changed since the fit: The 'alpha' parameter"),
        ({"dropout": [0.1]}, "changed since the fit: dropout has 1 entries"),
    ],
)
def test_parameters_that_no_longer_fit_are_refused(changed, message, tmp_path):
    model = regressor().set_params(**changed)
    with pytest.raises(SavingError, match=message):
        save_model(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["layers.1.W", "layers.0.b", "moments.1.variance", "scaling.shift"]
)
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_diverged_model_is_never_saved(name, value, tmp_path):
    model = fitted(normalization="batch", input_scaling="standardize")
    save_model(model, tmp_path)
    good = load_model(tmp_path)
    arrays = {
        "layers.1.W": model.coefs_[1],
        "layers.0.b": model.intercepts_[0],
        "moments.1.variance": model.moments_[1].variance,
        "scaling.shift": fitted_state(model).scaling.shift,
    }
    arrays[name][(0,) * arrays[name].ndim] = value
    with pytest.raises(SavingError, match=f"'{name}' has NaN or infinity.* smaller learning_rate"):
        save_model(model, tmp_path)
    assert_same(load_model(tmp_path).coefs_, good.coefs_, "the model that was there")


def test_what_is_no_estimator_of_this_library_is_refused(tmp_path):
    with pytest.raises(SavingError, match=r"Ridge is neither .*: use pickle or joblib"):
        save_model(Ridge().fit(X, CODES), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_classes_without_a_json_form_are_refused(tmp_path):
    model = fitted()
    model.classes_ = np.asarray([1, "a", None], dtype=object)
    with pytest.raises(SavingError, match=r"classes_ are of dtype object.*y\.astype\(str\)"):
        save_model(model, tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as beside:
            beside.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_save_that_fails_leaves_the_old_model(number, tmp_path, monkeypatch):
    old, new = fitted(), fitted(random_state=1, alpha=0.5)
    save_model(old, tmp_path)
    write, written = Path.write_bytes, []

    def full_disk(path, content):
        written.append(path)
        if len(written) == number:
            write(path, content[:10])
            raise OSError("No space left on device")
        return write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_model(new, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    loaded = load_model(tmp_path)
    assert loaded.alpha == old.alpha
    np.testing.assert_array_equal(loaded.predict_proba(X), old.predict_proba(X))


def test_what_can_be_saved_is_told_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_can_save(fitted())
    with pytest.raises(SavingError, match=r"activation is .*my_activation.* pickle or joblib"):
        check_can_save(regressor(activation=my_activation))
    with pytest.raises(NotFittedError):
        check_can_save(MLPClassifier())
    assert list(tmp_path.iterdir()) == []
