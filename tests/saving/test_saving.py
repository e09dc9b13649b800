"""Loaded models and ensembles are the saved ones, bit for bit, and few bytes in skops."""

import json
import math
import zipfile
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import case
from models import CODES, SEVERAL, VALUES, X, check, fitted, regressor, rejects, reload, same_bits
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mlp_xp import (
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    MLPTunedClassifier,
)
from mlp_xp.augmentation import Flip
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.nn import losses
from mlp_xp.nn.blocks import PBLD
from mlp_xp.nn.hidden import Branch, Project
from mlp_xp.optimizers import SGD, Adam, AdamW, BetaLasso, ByKind, Lion, Muon, RMSprop
from mlp_xp.optimizers import schedules as rates
from mlp_xp.saving import SPEC, load_model, save_model, skops_types
from mlp_xp.saving._pipelines import steps_name, with_steps
from mlp_xp.training.data.input_scaling import Whiten

CLASSES = [
    *(CODES, CODES - 7, CODES.astype(np.uint8), CODES.astype(np.float32), CODES > 0),
    np.asarray(["ant", "bee", "é ü"])[CODES],
    np.asarray(["ant", "bee", "cat"], dtype=object)[CODES],
    np.zeros(60, dtype=int),
]
TRAINING = {
    **{"solver": AdamW(weight_decay=0.05), "batch_size": 20, "random_state": 3},
    "learning_rate": rates.LinearWarmup(0.2, rates.LinearWarmup(0.1, rates.Cosine(0.1))),
    **{"class_weight": {0: 1.0, 1: 2, 2: 0.5}, "backend": "numpy"},
    **{"scoring": "neg_log_loss", "label_smoothing": 0.1, "calibration": "temperature"},
    **{"early_stopping": True, "validation_fraction": 0.3},
}
NETWORK = {
    **{"hidden_layer_sizes": [7, 7, 4], "activation": ["gelu", "tanh", "relu"], "residual": True},
    **{"dropout": (0.1, 0, 0.2), "input_dropout": 0.1, "normalization": "batch"},
    **{"early_stopping": True, "ema_decay": 0.9, "max_grad_norm": 1.0},
    **{"input_scaling": "standardize", "parametric_activation": True},
    **{"numeric_embedding": "ple", "learn_input_scale": True},
}
REGRESSION = {
    **{"hidden_layer_sizes": (7, 7), "normalization": "batch", "residual": True},
    **{"early_stopping": True, "validation_fraction": 0.2, "learning_rate": "adaptive"},
    **{"output_activation": "tanh", "loss": "quantile", "numeric_embedding": PBLD(3)},
    "parametrization": "ntk",
}
TEXT_WEIGHTS = {"nan": 1.5, "x": 2, "inf": 0.5}


@pytest.mark.parametrize(
    ("y", "params"),
    [
        *((y, {"input_scaling": "pca"}) for y in CLASSES),
        (CODES, TRAINING),
        (CODES, NETWORK),
        (SEVERAL, {"normalization": "layer", "loss": "focal", "random_state": None}),
        (SEVERAL, {"early_stopping": True, "loss": losses.BinaryFocal(1.5)}),
        (CODES % 2, {"output_activation": "softmax", "solver": Muon(ns_steps=4)}),
        (CODES, {"output_activation": "logistic", "loss": losses.BinaryCrossEntropy(0.2)}),
        (np.asarray(["inf", "nan", "x"])[CODES], {"class_weight": TEXT_WEIGHTS, "solver": "sgd"}),
        (CODES, {"solver": "lbfgs", "hidden_layer_sizes": ()}),
        (VALUES, REGRESSION),
        (VALUES[:, 0], {"loss": losses.Through(losses.Huber(2.0), "softplus")}),
        (np.abs(VALUES), {"loss": "poisson", "solver": Lion(weight_decay=0.1)}),
        (VALUES, {"solver": "lbfgs", "normalization": "layer", "clip_predictions": True}),
        (VALUES, {"solver": "lbfgs", "tol": 1e9}),  # It ends without an iteration.
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_loading_restores_settings_and_everything_learned(y, params, dtype, tmp_path):
    data = X.astype(dtype)
    model = (regressor if y.dtype.kind == "f" else fitted)(y, data, **params)
    loaded = check(model, tmp_path / "new" / "folder")
    for method in ("predict", "predict_proba", "hidden_activations"):
        if hasattr(model, method) and (method != "hidden_activations" or model.n_layers_ > 2):
            same_bits(getattr(loaded, method)(data), getattr(model, method)(data), method)
    same_bits(loaded.evaluate(data, y), model.evaluate(data, y), "evaluate")


def test_loading_restores_rarely_used_attributes(tmp_path):
    model = regressor(X_val=X, y_val=VALUES)
    assert len(model.validation_loss_curve_) == 3
    model.feature_names_in_ = np.asarray(list("abcde"), dtype=object)
    model.__class__ = type("Mine", (MLPRegressor,), {})
    assert type(check(model, tmp_path)) is MLPRegressor
    model = fitted()  # Arrays that are not in C order, and numbers that are not finite.
    model.coefs_[0] = np.asfortranarray(model.coefs_[0])
    model.coefs_[1:] = [model.coefs_[1][::-1], model.coefs_[2].T.copy().T]
    model.loss_curve_ = [np.float64(value) for value in (1.0, math.inf, math.nan)]
    model.loss_, model.best_loss_ = np.float64(math.nan), np.float64(1.0)
    model.validation_scores_, model.best_validation_score_ = [0.5, math.nan], -math.inf
    check(model, tmp_path)


RULES = {
    "solver": [
        *(SGD(0.5, False), Adam(), AdamW(), RMSprop(momentum=0.5), Lion(), BetaLasso(beta=2.0)),
        *(Muon(scale="original"), Adam(np.float64(0.5)), ByKind(), ByKind(Lion(), SGD(0.5))),
        ByKind(vector=SGD(momentum=0.5), head=Muon(ns_steps=3), head_rate=0.5),
    ],
    "learning_rate": [
        *(rates.Constant(), rates.InvScaling(0.3), rates.Cosine(0.2), rates.OneCycle(0.2, 10, 100)),
        *(rates.Linear(0.1), rates.LinearWarmup(), rates.CosLog(3), rates.FlatCosine(0.2)),
        rates.LinearWarmup(then=rates.Linear()),
    ],
    "loss": [
        *(losses.SoftmaxCrossEntropy(0.1), losses.SoftmaxFocal(1.0), losses.SquaredError()),
        *(losses.AbsoluteError(), losses.Huber(0.5), losses.Quantile(0.9), losses.Gaussian()),
        *(losses.Quantile((0.1, 0.5, 0.9)), losses.Poisson()),
        losses.Through(losses.Quantile(0.1), "exp"),
    ],
    "hidden_layer_sizes": [[7], (Project(4), Branch((6, 4)))],
    **{"class_weight": ["balanced"], "n_iter_no_change": [5]},
    "input_scaling": ["zca", Whiten("pca", 3), Whiten(epsilon=0.1)],
}


@pytest.mark.parametrize("name", RULES)
def test_loading_restores_all_kinds_of_parameters(name, tmp_path):
    for value in RULES[name]:
        is_class = name != "loss" or type(value).__name__.startswith("Softmax")
        make, y = (fitted, CODES) if is_class else (regressor, np.abs(VALUES))
        with case(value):
            check(make(y, **{"max_iter": 1, name: value}), tmp_path)


def test_numpy_numbers_load_as_python_numbers_and_generators_as_seeds(tmp_path):
    weights = {np.int64(0): np.float32(0.5), np.int64(1): 1.0, np.int64(2): 1.0}
    model = fitted(batch_size=np.int64(20), class_weight=weights, random_state=np.int64(3))
    loaded = reload(model, tmp_path)
    assert loaded.get_params() == model.get_params()
    assert {type(key) for key in loaded.class_weight} == {int}
    model = fitted(random_state=np.random.RandomState(5))
    loaded = reload(model, tmp_path)
    assert loaded.random_state == fitted_state(loaded).seed == fitted_state(model).seed


def test_a_model_can_be_saved_at_any_time_without_its_callbacks(tmp_path):
    def save(model, record):
        save_model(model, tmp_path / str(record.epoch))

    def fail(*_):
        raise RuntimeError("stop")

    model = fitted(callbacks=[SimpleNamespace(on_epoch_end=save)])
    for epoch in (1, 2, 3):
        loaded = load_model(tmp_path / str(epoch))
        assert (loaded.callbacks, loaded.history_) == (None, model.history_[:epoch])
    check(model, tmp_path)
    model = MLPClassifier((7,), random_state=0, callbacks=[SimpleNamespace(on_step_end=fail)])
    with pytest.raises(RuntimeError, match="stop"):
        model.fit(X, CODES)
    assert not hasattr(model, "loss_")
    check(model, tmp_path)


@pytest.mark.parametrize("solver", [SGD(momentum=0.0), Adam()])
@pytest.mark.parametrize(("make", "y"), [(fitted, CODES), (regressor, VALUES)])
def test_a_loaded_model_resumes_training_and_restarts_its_schedule(make, y, solver, tmp_path):
    model = make(solver=solver, learning_rate="cosine", batch_size=60)
    loaded = reload(model, tmp_path).partial_fit(X, y)
    assert [record.epoch for record in loaded.history_] == [1, 2, 3, 4]
    assert loaded.history_[-1].learning_rate == model.learning_rate_init
    assert (model.n_iter_, loaded.n_iter_, model.t_, loaded.t_) == (3, 4, 180, 240)
    assert not np.array_equal(loaded.coefs_[0], model.coefs_[0])
    if not solver.state_type._fields:  # With no state to lose, as if nothing was saved.
        same_bits(loaded.coefs_, model.partial_fit(X, y).coefs_, "coefs_")
    loaded.set_params(warm_start=True).fit(X, y)


def test_models_of_any_backend_load_as_numpy_arrays(backend, tmp_path):
    with backend.scope():
        model = fitted(max_iter=2, backend=backend.name, device=backend.device)
    loaded = reload(model, tmp_path)
    assert loaded.backend == backend.name
    assert {type(array) for array in (*loaded.coefs_, *loaded.intercepts_)} == {np.ndarray}
    loaded.set_params(backend="numpy", device=None)
    np.testing.assert_allclose(loaded.predict_proba(X), model.predict_proba(X), rtol=1e-4)


LABELS = np.asarray(["ant", "bee", "cat"])[CODES]


def ensemble() -> MLPEnsembleClassifier:
    network = fitted(normalization="batch", device="cpu")
    settings = [{"alpha": 0.1}, {"hidden_layer_sizes": (3,), "solver": AdamW(weight_decay=0.1)}]
    return MLPEnsembleClassifier(network, 3, settings=settings, random_state=0)


def test_an_ensemble_can_be_saved_and_loaded(tmp_path):
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = ensemble().fit(frame, LABELS)
    loaded = reload(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    assert type(loaded) is MLPEnsembleClassifier
    assert vars(loaded).keys() == vars(model).keys()
    mine, theirs = ({k: str(v) for k, v in m.get_params().items()} for m in (model, loaded))
    assert mine == theirs
    for name in ("classes_", "feature_names_in_"):
        same_bits(getattr(loaded, name), getattr(model, name), name)
    for method in ("predict", "predict_proba"):
        found, expected = (getattr(m, method)(frame, return_std=True) for m in (loaded, model))
        same_bits(found, expected, method)


def test_a_tuned_ensemble_can_be_saved_and_loaded(tmp_path):
    network = MLPClassifier(4, max_iter=2, learning_rate="cosine", input_scaling="standardize")
    model = MLPTunedClassifier(network, n_configurations=2, n_folds=2, random_state=0)
    loaded = reload(model.fit(X, LABELS), tmp_path)
    assert type(loaded) is MLPTunedClassifier
    assert vars(model).keys() - vars(loaded).keys() == {"out_of_fold_"}
    assert loaded.search_results_ == model.search_results_
    same_bits(loaded.weights_, model.weights_, "weights_")
    same_bits(loaded.predict_proba(X), model.predict_proba(X), "predict_proba")
    whole = (tmp_path / SPEC).read_text()
    for change, message in (
        (lambda tuned: tuned["weights"].pop(), "weights do not match the networks"),
        (lambda tuned: tuned["weights"].__setitem__(0, 5.0), "weights do not match"),
        (lambda tuned: tuned["results"]["name"].pop(), "results have different lengths"),
        (lambda tuned: tuned.update(loss="low"), "loss is 'low', not a number"),
    ):
        spec = json.loads(whole)
        change(spec["tuned"])
        (tmp_path / SPEC).write_text(json.dumps(spec))
        rejects(message, load_model, tmp_path)


def test_ensembles_and_single_models_can_replace_each_other(tmp_path):
    first, second = (MLPEnsembleRegressor(regressor(alpha=a), 2, random_state=0) for a in (1, 2))
    for model in (first.fit(X, VALUES), second.fit(X, VALUES), regressor()):
        same_bits(reload(model, tmp_path).predict(X), model.predict(X), "predict")
        assert len(list(tmp_path.iterdir())) == 2


def test_unsupported_ensembles_are_rejected_when_saving(tmp_path):
    with pytest.raises(NotFittedError):
        save_model(ensemble(), tmp_path)
    model = ensemble().fit(X, CODES)
    before, model.settings = model.settings, [{"loss": lambda outputs, targets, *, xp: None}]
    rejects(r"loss is .* which has no JSON form", save_model, model, tmp_path)
    model.settings = before
    model.estimators_[1].coefs_[0][0, 0] = np.inf
    rejects(r"tensor '1.layers.0.W' has NaN or infinity", save_model, model, tmp_path)


def test_tampered_ensemble_files_are_rejected(tmp_path):
    save_model(ensemble().fit(X, LABELS), tmp_path)
    whole = (tmp_path / SPEC).read_text()
    labels = {"values": ["x", "y", "z"]}
    for change, message in (
        (lambda spec: spec["networks"].pop(), "tensor '2.layers"),
        (lambda spec: spec.update(networks=[]), "networks is empty"),
        (lambda spec: spec.update(networks=7), "cannot be loaded"),
        (lambda spec: spec["networks"][1]["classes"].update(labels), "networks differ"),
        (lambda spec: spec["params"].update(n_estimators=-1), "n_estimators"),
        (lambda spec: spec["params"].update(nothing=1), "nothing"),
        (lambda spec: spec["params"]["estimator"].update(callbacks=[1]), "callbacks"),
        (lambda spec: spec["params"]["settings"][0].update(alpha=-1), "alpha"),
        (lambda spec: spec["params"].update(verbose=True), "SHA-256"),
    ):
        spec = json.loads(whole)
        change(spec)
        (tmp_path / SPEC).write_text(json.dumps(spec))
        rejects(message, load_model, tmp_path)


@pytest.mark.matrix
def test_whole_pipelines_are_saved_and_untrusted_types_are_not_loaded(rng, tmp_path):
    io = pytest.importorskip("skops.io")
    n = 60
    table = pd.DataFrame({"sex": rng.choice(["male", "female"], n), "age": rng.uniform(1, 80, n)})
    table.loc[::7, "age"], table.loc[::9, "sex"] = np.nan, np.nan
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    columns = ColumnTransformer([("text", text, ["sex"]), ("numbers", numbers, ["age"])])
    y = rng.integers(0, 2, n)
    one, other = (MLPClassifier(4, max_iter=3) for _ in range(2))
    for network in (one, MLPEnsembleClassifier(other, n_estimators=2)):
        model = make_pipeline(columns, network).fit(table, y)
        save_model(model, tmp_path)
        loaded = load_model(tmp_path)
        assert [name for name, _ in loaded.steps] == [name for name, _ in model.steps]
        np.testing.assert_array_equal(loaded.predict_proba(table), model.predict_proba(table))
        [file] = tmp_path.glob("steps-*")  # The previous model's file is gone.
    own = make_pipeline(FunctionTransformer(rejects), model[-1])
    rejects(r"has models\.rejects, which skops does not load", save_model, own, tmp_path)
    content = io.dumps(own)
    file.write_bytes(content)
    rejects(r"SHA-256 differs from its name", load_model, tmp_path)
    bomb = io.dumps(own, compression=zipfile.ZIP_DEFLATED)
    for bad, why in ((content, "Untrusted types"), (b"", "not a zip"), (bomb, "is compressed")):
        (tmp_path / steps_name(bad)).write_bytes(bad)
        rejects(why, with_steps, tmp_path, steps_name(bad), model[-1])


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_skops_needs_only_the_documented_trusted_types():
    io = pytest.importorskip("skops.io")
    age = np.where(CODES > 1, np.nan, X[:, 0])
    born = pd.to_datetime(CODES, unit="D")
    table = pd.DataFrame(
        {"age": age, "city": np.asarray(list("abcdefghijkl"))[CODES * 4], "born": born}
    )
    columns = {"categorical_features": "from_dtype", "missing_values": "impute", "max_one_hot": 1}
    quantiles = {"loss": losses.Quantile((0.1, 0.5, 0.9)), "early_stopping": True}
    with_images = {"augmentation": [Flip((1, 1, 5))], "tta": [Flip((1, 1, 5))]}
    models = [
        *(fitted(**params) for params in (TRAINING, NETWORK, with_images, {"n_members": 2})),
        *(fitted(y) for y in (SEVERAL, np.column_stack([CODES, CODES > 0]))),
        regressor(**REGRESSION),
        regressor(target_scaling="standardize", **quantiles).calibrate_intervals(X, VALUES),
        *(
            regressor(VALUES[:, 0], **{name: value})
            for name, all in RULES.items()
            for value in all
            if name in ("solver", "learning_rate", "hidden_layer_sizes", "input_scaling")
        ),
        *(fitted(X=table, input_scaling=scaling, **columns) for scaling in ("robust", "quantile")),
        MLPEnsembleClassifier(MLPClassifier(4, max_iter=2), 2).fit(X, CODES),
        MLPEnsembleRegressor(MLPRegressor(hidden_layer_sizes=4, max_iter=2), 2).fit(X, VALUES),
    ]
    trusted = skops_types()
    assert all(name.startswith("mlp_xp.") for name in trusted)
    for model in models:
        with case(repr(model)):
            content = io.dumps(model)
            assert {*io.get_untrusted_types(data=content)} <= {*trusted}
            rows = table if hasattr(model, "columns_") else X
            loaded = io.loads(content, trusted=trusted)
            np.testing.assert_array_equal(loaded.predict(rows), model.predict(rows))


def _schema_size(content):
    """Return the length of the indented JSON, in which each setting has its own text."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return archive.getinfo("schema.json").compress_size


@pytest.mark.matrix
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_skops_files_are_small_and_load_the_same_model(kind, rng):
    io = pytest.importorskip("skops.io")
    X, y = rng.normal(size=(60, 64)).astype("float32"), rng.integers(0, 3, 60)
    settings = {"hidden_layer_sizes": (256, 256), "learning_rate": "cosine", "random_state": 0}
    size, arrays = {}, {}
    for name, params in {
        "plain": {"solver": "sgd", "momentum": 0},
        "state": {"solver": "adam"},
        "epochs": {"max_iter": 101},
        "scores": {"max_iter": 5, "early_stopping": True},
    }.items():
        model = kind(**{"max_iter": 1} | settings | params).fit(X, y)
        content = io.dumps(model)
        types = io.get_untrusted_types(data=content)
        assert len(types) < 16
        assert all(name.startswith("mlp_xp.") for name in types)
        loaded = io.loads(content, trusted=types)
        size[name], arrays[name] = len(content), len(content) - _schema_size(content)
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
        for curve in ("history_", "loss_curve_", "validation_scores_", "validation_loss_curve_"):
            same_bits(getattr(loaded, curve), getattr(model, curve), curve)
    weights = sum(array.nbytes for array in (*model.coefs_, *model.intercepts_))
    assert arrays["plain"] < weights + 5_000
    assert arrays["state"] < 3 * weights + 10_000
    assert size["epochs"] < size["state"] + 100 * 150
    assert len(io.dumps(model, compression=zipfile.ZIP_DEFLATED)) < 3 * weights + 5_000
    again = loaded.partial_fit(X, y)
    np.testing.assert_array_equal(again.coefs_[0], model.partial_fit(X, y).coefs_[0])
