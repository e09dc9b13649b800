"""Every parameter of the estimators: exported with the same predictions, or refused by its name."""

import inspect
import tempfile
from pathlib import Path

import numpy as np
import pytest
from c_compiler import WARNINGS, build_program, predict_csv
from helpers import case
from problems import TARGETS, X, run_onnx
from sklearn.base import clone, is_regressor

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.augmentation import Flip, Shift
from mlp_xp.callbacks import Callback
from mlp_xp.export import to_c, to_onnx, to_sklearn, to_torch
from mlp_xp.nn.blocks import PLE
from mlp_xp.nn.hidden import Blocks, Branch, Project
from mlp_xp.nn.layers import silu
from mlp_xp.nn.losses import Quantile
from mlp_xp.optimizers import AdamW, Lion
from mlp_xp.optimizers.schedules import OneCycle

KINDS = (MLPClassifier, MLPRegressor)
PARAMETERS = {kind: set(inspect.signature(kind).parameters) for kind in KINDS}
LAYERS, BLOCKS = (Project(6), Branch((9, 6))), (Blocks((3, 4), (0,), 2), Blocks((4, 2), (1,)))
FOLDED = [{"normalization": "batch", "input_scaling": name} for name in ("standardize", "zca")]
SCHEDULES = "constant", "invscaling", "adaptive", "warmup", "cosine", "onecycle", "coslog4"
OTHERS = "gelu", "silu", "leaky_relu", "elu", "selu", "mish", "softplus"
TABM = {"n_members": 3, "embedding_dim": 2, "learn_input_scale": True}
CST = [1, -1, 0] * 4
IMAGES, LEVELS = Flip((1, 3, 4)), Quantile((0.1, 0.5, 0.9))


def squared(outputs, targets, *, xp):
    difference = outputs - targets
    losses = xp.sum(difference**2, axis=-1)
    return losses, lambda dlosses: 2.0 * difference * dlosses[..., None]


# Values of parameters, or dictionaries of them and of others.
EXPORTED = {
    **{"activation": ["identity", "logistic", "tanh", "relu"], "alpha": [0.1], "batch_size": [7]},
    **{"augmentation": [IMAGES], "backend": ["numpy", "array_api_strict"], "device": ["cpu"]},
    **{"beta_1": [0.5], "beta_2": [0.5], "epsilon": [1e-3], "callbacks": [[Callback()]]},
    "calibration": [{"calibration": "temperature", "early_stopping": True}],
    "class_weight": ["balanced", {0: 2.0, 1: 1.0, 2: 3.0}],
    "distributed": [None],  # Others need several processes, and end in the same weights.
    "dropout_schedule": [{"dropout_schedule": "flat_cos", "dropout": 0.5}],
    "weight_decay_schedule": [{"weight_decay_schedule": "linear", "solver": "adamw"}],
    **{"dropout": [0.5, [0.1, 0.2]], "early_stopping": [True], "ema_decay": [0.9]},
    **{"hidden_layer_sizes": [(), 5, (6, 5)], "input_dropout": [0.3], "label_smoothing": [0.1]},
    "input_scaling": ["standardize", "zca", "pca"],
    "learning_rate": [*SCHEDULES, OneCycle()],
    **{"learning_rate_init": [0.1], "loss": ["focal", "absolute_error", "huber", squared]},
    **{"max_fun": [{"max_fun": 3, "solver": "lbfgs"}], "max_grad_norm": [1.0], "max_iter": [3]},
    **{"max_time": [60.0], "momentum": [{"momentum": 0.5, "solver": "sgd"}]},
    "n_iter_no_change": [1, float("inf")],
    "nesterovs_momentum": [{"nesterovs_momentum": False, "solver": "sgd"}],
    **{"output_activation": ["softmax", "identity"], "placement": ["resident", "streamed"]},
    "power_t": [{"power_t": 0.9, "solver": "sgd", "learning_rate": "invscaling"}],
    **{"precision": ["float64", "float32"], "random_state": [1], "shuffle": [False], "tol": [1.0]},
    **{
        f"prediction_{name}": [{f"prediction_{name}": "held_out", "early_stopping": True}]
        for name in ("intervals", "sets")
    },
    "coverage_by": [0],
    "restart_factor": [{"restart_factor": 5.0, "early_stopping": True}],
    "scoring": [{"scoring": "loss", "early_stopping": True}],
    "target_scaling": ["standardize"],
    "solver": ["sgd", "adamw", "rmsprop", "lion", "muon", "beta_lasso", "lbfgs", AdamW(), Lion()],
    "validation_fraction": [{"validation_fraction": 0.4, "early_stopping": True}],
    **{"verbose": [True], "warm_start": [True]},
}
NOT_BY_SKLEARN = {
    "activation": [*OTHERS, ["relu", "tanh"], silu],
    "hidden_layer_sizes": [LAYERS, {"hidden_layer_sizes": BLOCKS, "normalization": "batch"}],
    "loss": [
        *(LEVELS, "gaussian", {"loss": LEVELS, "output_activation": "identity"}),
        *({"loss": loss, "target_scaling": "standardize"} for loss in (LEVELS, "gaussian")),
    ],
    "normalization": ["layer", "batch", *FOLDED],
    "n_members": [3],
    "learn_input_scale": [{"learn_input_scale": True, "input_scaling": "standardize"}],
    "numeric_embedding": ["pbld", "ple", {"numeric_embedding": PLE(3, 2), "input_scaling": "pca"}],
    "parametric_activation": [True, {"parametric_activation": True, "activation": "mish"}],
    "parametrization": ["ntk"],
    "categorical_features": [[0, 2], "from_dtype", {"categorical_features": [1]} | TABM],
    "embedding_dim": [{"embedding_dim": 2, "categorical_features": [1]}],
    "input_scaling": ["robust", "quantile"],
    "max_one_hot": [{"max_one_hot": 99, "categorical_features": [1]}],
    "missing_values": ["impute", {"missing_values": "impute", "numeric_embedding": "ple"} | TABM],
    "monotonic_cst": [
        *(CST, {"monotonic_cst": CST, "normalization": "batch"}),
        {"monotonic_cst": CST, "numeric_embedding": "ple"} | TABM,
    ],
    "clip_predictions": [True, {"clip_predictions": True, "target_scaling": "standardize"}],
    "residual": [True, {"residual": True, "normalization": "layer"}],
    "output_activation": ["logistic", "tanh", "softplus", "exp", "relu"],
}
NOT_BY_TORCH = {"tta": [IMAGES, [IMAGES, Shift((1, 3, 4), pixels=1)]]}
TABLES = ((EXPORTED, ()), (NOT_BY_SKLEARN, ("sklearn",)), (NOT_BY_TORCH, ("sklearn", "torch")))
# The kinds that take a value of a parameter of both, where they are not regressors.
ALONE = {"focal": KINDS[:1], "softmax": KINDS[:1], "logistic": KINDS}


def kinds_of(name, value):
    """Return the kinds of estimators that take a value of a parameter."""
    if name in ("loss", "output_activation", "monotonic_cst"):
        return ALONE.get(str(value), KINDS[1:])
    return [kind for kind in KINDS if name in PARAMETERS[kind]]


def fitted(kind, settings):
    usual = {"hidden_layer_sizes": (6, 6), "max_iter": 2, "batch_size": 20, "random_state": 0}
    model = kind(**usual | {"learning_rate_init": 0.01} | settings)
    return model.fit(X, TARGETS["value" if is_regressor(model) else "three classes"])


def predictions(model):
    return model.predict(X) if is_regressor(model) else model.predict_proba(X)


def dtype_of(model):
    arrays = getattr(model, "coefs_", None) or model.other_weights_[0]
    return str(arrays[0].dtype).removeprefix("torch.")


def by_onnx(model):
    name = "prediction" if is_regressor(model) else "probabilities"
    return run_onnx(to_onnx(model), X.astype(dtype_of(model)))[name]


def by_torch(model):
    import torch

    module = to_torch(model, activate=True)
    rows = model.columns_.transform(X) if hasattr(model, "columns_") else X
    found = module(torch.from_numpy(rows.astype(dtype_of(model)))).detach().numpy()
    if isinstance(model.loss, Quantile):
        return found[:, 1]
    return found[:, 0] if is_regressor(model) else found / found.sum(axis=1, keepdims=True)


def by_sklearn(model):
    exported = to_sklearn(model)
    clone(exported).set_params(max_iter=1).fit(X, exported.predict(X))  # It has all settings.
    return predictions(exported)


def by_c(model):
    with tempfile.TemporaryDirectory() as folder:
        to_c(model, path := Path(folder) / "net.h", dtype=dtype_of(model))
        program = build_program(path, "NET_MAIN", flags=("-std=c99", "-O0", *WARNINGS))
        found = predict_csv(program, X)
    return found[:, 0] if is_regressor(model) else found


EXPORTS = {"sklearn": by_sklearn, "onnx": by_onnx, "torch": by_torch, "c": by_c}


def check(export, refused, name, value):
    for kind in kinds_of(name, value):
        settings = value if isinstance(value, dict) and name in value else {name: value}
        model = fitted(kind, settings)
        with case((kind.__name__, settings)):
            if export in refused:
                with pytest.raises(ValueError, match=rf"\b{name}\b.*(to_onnx|fit with)"):
                    EXPORTS[export](model)
                continue
            # ONNX's runtimes have some activations in float32 only.
            is_single = dtype_of(model) == "float32" or (export, name) == ("onnx", "activation")
            tolerance = 1e-5 if is_single else 1e-12
            found = EXPORTS[export](model)
            np.testing.assert_allclose(found, predictions(model), atol=tolerance)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", sorted(set.union(*PARAMETERS.values())))
def test_every_setting_is_exported_or_rejected(name, export):
    """No parameter is left out."""
    values = [(refused, value) for table, refused in TABLES for value in table.get(name, ())]
    assert values
    for refused, value in values:
        check(export, refused, name, value)


@pytest.mark.libraries("torch")
def test_model_fitted_with_torch_can_be_exported(backend_spec, export):
    check(export, (), "precision", {"precision": "bf16", "backend": "torch"})
    check(export, (), "backend", "torch")
