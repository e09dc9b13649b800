"""Every parameter of the estimators: exported with the same predictions, or refused by its name."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from helpers import title
from problems import TARGETS, X
from sklearn.base import clone, is_regressor

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.augmentation import Flip
from mlp_xp.callbacks import Callback
from mlp_xp.export import to_onnx, to_sklearn, to_torch
from mlp_xp.nn.hidden import Branch, Project
from mlp_xp.nn.layers import silu
from mlp_xp.nn.losses import Quantile
from mlp_xp.optimizers import AdamW, Lion
from mlp_xp.optimizers.schedules import OneCycle

runtime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
pytest.importorskip("ndonnx")

KINDS = {"classifier": MLPClassifier, "regressor": MLPRegressor}
PARAMETERS = {kind: set(inspect.signature(KINDS[kind]).parameters) for kind in KINDS}
IMAGES = Flip((1, 3, 4))


def squared(outputs, targets, *, xp):
    difference = outputs - targets
    losses = xp.sum(difference**2, axis=-1)
    return losses, lambda dlosses: 2.0 * difference * dlosses[..., None]


# Parameters by the exports that refuse their values. A dictionary has other parameters too.
EXPORTED = {
    "activation": ["identity", "logistic", "tanh", "relu"],
    "alpha": [0.1],
    "augmentation": [IMAGES],
    "backend": ["numpy", "torch"],
    "batch_size": [7],
    "beta_1": [0.5],
    "beta_2": [0.5],
    "callbacks": [[Callback()]],
    "class_weight": ["balanced", {0: 2.0, 1: 1.0, 2: 3.0}],
    "device": ["cpu"],
    "distributed": [None],  # Others need several processes, and end in the same weights.
    "dropout": [0.5, [0.1, 0.2]],
    "early_stopping": [True],
    "ema_decay": [0.9],
    "epsilon": [1e-3],
    "hidden_layer_sizes": [(), 5, (6, 5)],
    "input_dropout": [0.3],
    "input_scaling": ["standardize", "zca", "pca"],
    "label_smoothing": [0.1],
    "learning_rate": [
        "constant",
        "invscaling",
        "adaptive",
        "warmup",
        "cosine",
        "onecycle",
        OneCycle(),
    ],
    "learning_rate_init": [0.1],
    "loss": [{"regressor": ["absolute_error", "huber", squared], "classifier": ["focal"]}],
    "max_fun": [{"max_fun": 3, "solver": "lbfgs"}],
    "max_grad_norm": [1.0],
    "max_iter": [3],
    "max_time": [60.0],
    "momentum": [{"momentum": 0.5, "solver": "sgd"}],
    "n_iter_no_change": [1, float("inf")],
    "nesterovs_momentum": [{"nesterovs_momentum": False, "solver": "sgd"}],
    "output_activation": [{"classifier": ["softmax"], "regressor": ["identity"]}],
    "placement": ["resident", "streamed"],
    "power_t": [{"power_t": 0.9, "solver": "sgd", "learning_rate": "invscaling"}],
    "precision": ["float64", {"precision": "bf16", "backend": "torch"}],
    "random_state": [1],
    "scoring": [{"scoring": "loss", "early_stopping": True}],
    "shuffle": [False],
    "solver": ["sgd", "adamw", "rmsprop", "lion", "muon", "beta_lasso", "lbfgs", AdamW(), Lion()],
    "tol": [1.0],
    "validation_fraction": [{"validation_fraction": 0.4, "early_stopping": True}],
    "verbose": [True],
    "warm_start": [True],
}
NOT_BY_SKLEARN = {
    "activation": ["gelu", "silu", "leaky_relu", "elu", "softplus", ["relu", "tanh"], silu],
    "hidden_layer_sizes": [(Project(6), Branch((9, 6)))],
    "loss": [{"regressor": [Quantile((0.1, 0.5, 0.9)), "gaussian"]}],
    "normalization": ["layer", "batch"],
    "output_activation": [{"classifier": ["logistic"], "regressor": ["tanh", "softplus"]}],
    "residual": [True],
}
BY_ONNX_ALONE = {"tta": [IMAGES]}
REFUSALS = [
    (EXPORTED, ()),
    (NOT_BY_SKLEARN, ("sklearn",)),
    (BY_ONNX_ALONE, ("sklearn", "torch")),
]


def cases():
    """Return all values; what both kinds of estimators take, they take in turn."""
    found = []
    for table, refused in REFUSALS:
        for name, values in table.items():
            for value in values:
                kinds = [kind for kind in KINDS if name in PARAMETERS[kind]]
                if isinstance(value, dict) and set(value) <= set(KINDS):
                    pairs = [(kind, one) for kind in value for one in value[kind]]
                else:
                    pairs = [(kinds[len(found) % len(kinds)], value)]
                for kind, one in pairs:
                    settings = one if isinstance(one, dict) and name in one else {name: one}
                    text = f"{kind}-{name}-{title(one)}"
                    found.append(pytest.param(kind, name, settings, refused, id=text))
    return found


def fitted(kind, settings):
    usual = {"hidden_layer_sizes": (6, 6), "max_iter": 2, "batch_size": 20, "random_state": 0}
    model = KINDS[kind](**usual | {"learning_rate_init": 0.01} | settings)
    return model.fit(X, TARGETS["value" if is_regressor(model) else "three classes"])


def predictions(model):
    return model.predict(X) if is_regressor(model) else model.predict_proba(X)


def dtype_of(model):
    return str(model.coefs_[0].dtype).removeprefix("torch.")


def by_onnx(model):
    session = runtime.InferenceSession(to_onnx(model).SerializeToString())
    name = "prediction" if is_regressor(model) else "probabilities"
    return session.run([name], {"X": X.astype(dtype_of(model))})[0]


def by_torch(model):
    found = (
        to_torch(model, activate=True)(torch.from_numpy(X.astype(dtype_of(model)))).detach().numpy()
    )
    if isinstance(model.loss, Quantile):
        return found[:, 1]
    return found[:, 0] if is_regressor(model) else found / found.sum(axis=1, keepdims=True)


def by_sklearn(model):
    exported = to_sklearn(model)
    clone(exported).set_params(max_iter=1).fit(X, exported.predict(X))  # It has all its settings.
    return predictions(exported)


EXPORTS = {"onnx": by_onnx, "torch": by_torch, "sklearn": by_sklearn}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("kind", "name", "settings", "refused"), cases())
def test_a_setting_is_exported_or_refused(kind, name, settings, refused):
    model = fitted(kind, settings)
    for export, predict in EXPORTS.items():
        if export in refused:
            with pytest.raises(ValueError, match=rf"\b{name}\b.*to_onnx"):
                predict(model)
        else:
            tolerance = 1e-5 if export == "onnx" or dtype_of(model) == "float32" else 1e-9
            np.testing.assert_allclose(predict(model), predictions(model), atol=tolerance)


def test_no_parameter_is_left_out():
    listed = {name for table, _ in REFUSALS for name in table}
    assert set.union(*PARAMETERS.values()) == listed
