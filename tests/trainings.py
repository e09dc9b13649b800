"""Cases for tests of whole fits: data, settings, and the function that fits."""

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")  # See conftest.py.

import numpy as np
from helpers import place_of
from scipy.sparse import csr_matrix

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.augmentation import Flip
from mlp_xp.nn.hidden import Blocks, Branch, Project
from mlp_xp.optimizers import SGD, ByKind, Lion, Muon

N, FEATURES, SHAPE = 30, 6, (3, 8, 8)
# An epoch has four batches; the last one is smaller.
SETTINGS = {"hidden_layer_sizes": (8, 5), "batch_size": 8, "max_iter": 3, "random_state": 0}
SETTINGS |= {"learning_rate_init": 0.01, "n_iter_no_change": float("inf")}


@cache
def data(kind: str) -> tuple[Any, Any]:
    """Return X and y, the same with every version of NumPy."""
    rng = np.random.RandomState(3)
    X, noise = rng.standard_normal((N, FEATURES)), 0.1 * rng.standard_normal((N, 3))
    score = X[:, :3] + noise
    pictures = rng.randint(0, 256, (12, int(np.prod(SHAPE))))
    labels = np.argmax(score, axis=1)
    return {
        "classes": (X, labels),
        "names": (X, np.asarray(["cat", "dog", "eel"])[labels]),
        "binary": (X, (score[:, 0] > 0).astype(np.int64)),
        "multilabel": (X, (score > 0).astype(np.int64)),
        "reals": (X, score[:, :2]),
        "sparse": (csr_matrix(np.where(np.abs(X) > 0.7, X, 0)), labels),
        "pictures": (pictures / 255, np.arange(12) % 3),
    }[kind]


def fit(model, X, y):
    return model.fit(X, y)


def fit_weighted(model, X, y):
    return model.fit(X, y, sample_weight=np.linspace(0, 2, len(y)))


def fit_with_validation(model, X, y):
    return model.fit(X[:22], y[:22], X_val=X[22:], y_val=y[22:])


def fit_twice(model, X, y):
    return model.fit(X, y).fit(X, y)


def partial_fits(model, X, y):
    known = {"classes": np.unique(y)} if isinstance(model, MLPClassifier) else {}
    model.partial_fit(X[:16], y[:16], **known)
    return model.partial_fit(X[16:], y[16:]).partial_fit(X, y)


def pickle_and_continue(model, X, y):
    return pickle.loads(pickle.dumps(model.fit(X, y))).partial_fit(X, y)  # noqa: S301


def move_and_continue(model, X, y):
    return model.fit(X, y).to("numpy").partial_fit(X, y)


@dataclass(frozen=True)
class Case:
    """A fit. Cases with ``is_core`` run on every backend, other cases only on NumPy."""

    kind: str = "classes"
    settings: dict[str, Any] = field(default_factory=dict)
    act: Callable[[Any, Any, Any], Any] = fit
    is_core: bool = False

    def make(self, spec: str) -> Any:
        kind = MLPRegressor if self.kind == "reals" else MLPClassifier
        return kind(**SETTINGS | self.settings, **place_of(spec))


CASES: dict[str, Case] = {}


def add(name: str, kind: str = "classes", act: Any = fit, core: bool = False, **settings: Any):
    assert name not in CASES, name
    CASES[name] = Case(kind, settings, act, core)


for solver in ("sgd", "adam", "adamw", "rmsprop", "lion", "muon", "beta_lasso", "lbfgs"):
    add(f"solver {solver}", solver=solver, core=solver in ("sgd", "adam"))
by_kind = ByKind(Muon(), SGD(), Lion(), vector_rate=2.0, head_rate=0.25)
add("rules by kind", solver=by_kind, core=True)

# Other losses do not depend on the number of ranks, so they have no cases.
add("loss log_loss, binary", "binary", core=True)
add("loss squared_error", "reals", core=True)

add("normalization layer", normalization="layer", core=True)
add("normalization batch", normalization="batch", solver="sgd", core=True)
add("dropout", dropout=[0.3, 0.5], core=True)
hidden = (Blocks((2, 3), (0,)), Branch((Blocks((2, 3), (1,)), Project(6))), 5)
add("hidden objects, layer", hidden_layer_sizes=hidden, normalization="layer", solver="muon")
# Adam would amplify rounding: the gradient of a bias before batch normalization is zero.
batch = {"solver": "sgd", "dropout": 0.2, "normalization": "batch"}
hidden = (Project(8), Branch((16, 8)), Branch((16, 8)))
add("hidden objects, batch", hidden_layer_sizes=hidden, **batch)
add("pictures, Flip", "pictures", core=True, augmentation=Flip(SHAPE, alternate=True))

for scaling in ("standardize", "zca", "pca"):
    add(f"scaling {scaling}", input_scaling=scaling, core=scaling == "zca")
add("scaling of sparse", "sparse", input_scaling="standardize")

stop = {"early_stopping": True, "validation_fraction": 0.3, "max_iter": 6, "n_iter_no_change": 2}
add("early stopping", **stop)
add("early stopping, loss", scoring="loss", core=True, **stop)
add("early stopping, real values", "reals", **stop)
add("early stopping, batch, average", normalization="batch", solver="sgd", ema_decay=0.7, **stop)
add("validation given, early stopping", act=fit_with_validation, **stop)
add("stops at the loss", tol=10.0, max_iter=6, n_iter_no_change=2)

add("warm start", act=fit_twice, warm_start=True, core=True)
add("warm start, streamed", act=fit_twice, warm_start=True, placement="streamed", dropout=0.2)
add("partial_fit", act=partial_fits, learning_rate="cosine", core=True)
add("partial_fit, batch", act=partial_fits, normalization="batch", solver="sgd", ema_decay=0.9)
add("pickle", act=pickle_and_continue, normalization="layer", ema_decay=0.9)
add("to", act=move_and_continue, dropout=0.2, core=True)

add("class weights, balanced", "names", act=fit_weighted, class_weight="balanced")
add("sample weights", act=fit_weighted, core=True)
add("sample weights, multilabel", "multilabel", act=fit_weighted)
add("sample weights, lbfgs", act=fit_weighted, solver="lbfgs")
add("sample weights, early stopping", act=fit_weighted, scoring="loss", **stop)
add("sparse", "sparse")
add("sparse, lbfgs", "sparse", solver="lbfgs")
add("streamed", placement="streamed", core=True)
add("streamed, whitened", placement="streamed", input_scaling="pca", input_dropout=0.2)
add("clipped gradients", max_grad_norm=0.1, core=True)
add("one batch", batch_size="auto", hidden_layer_sizes=3)
add("several at once", normalization="layer", dropout=0.2, input_dropout=0.1, max_grad_norm=1.0,
    ema_decay=0.9, label_smoothing=0.1, learning_rate="onecycle", residual=True,
    hidden_layer_sizes=(6, 6), solver="adamw", input_scaling="standardize",
    class_weight="balanced", act=fit_weighted)  # fmt: skip

add("schedule adaptive", solver="sgd", learning_rate="adaptive", tol=10.0, n_iter_no_change=1)
