"""A grid of trainings and what they compute, recorded before a redesign that may change none of it.

``python tests/net.py --record`` writes `tests/net.json`, which `tests/test_net.py` compares with.
To compare two revisions bit for bit on one machine, on every backend that it has::

    PYTHONPATH=old python tests/net.py --dump FILE
    PYTHONPATH=new python tests/net.py --against FILE
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import os
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")  # As conftest.py.

import joblib
import numpy as np
import scipy
import sklearn
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_info

from mlp_xp import MLPClassifier, MLPRegressor, get_backend
from mlp_xp.augmentation import ColorJitter, Cutout, Flip, Mixup, Shift
from mlp_xp.optimizers import SGD, Adam, AdamW, BetaLasso, ByKind, Lion, Muon, RMSprop
from mlp_xp.recipes import names as recipe_names
from mlp_xp.saving import load_model, save_model

# The modules that the redesign moves: first where they will be, then where they were.
try:
    from mlp_xp.nn.hidden import Blocks, Branch, Project
except ImportError:
    from mlp_xp.hidden import Blocks, Branch, Project
try:
    from mlp_xp.nn import losses
except ImportError:
    from mlp_xp import losses
try:
    from mlp_xp.optimizers import schedules
except ImportError:
    from mlp_xp import schedules
try:
    from mlp_xp.training.input_scaling import Whiten
except ImportError:
    from mlp_xp.scaling import Whiten

REFERENCE = Path(__file__).with_suffix(".json")
# Backends, and for NumPy who computes a step: numpy's functions, or machine code.
NUMPY_MODES = ("numpy", "numpy+machine code")
MODES = (
    *NUMPY_MODES,
    "numpy+machine code+all threads",
    "torch:cpu",
    "jax:cpu",
    "array_api_strict",
)
N, FEATURES, SHAPE = 30, 6, (3, 8, 8)
SETTINGS = {
    "hidden_layer_sizes": (8, 5),
    "batch_size": 8,  # The last of the four batches of an epoch is smaller.
    "max_iter": 3,
    "learning_rate_init": 0.01,
    "n_iter_no_change": float("inf"),
    "random_state": 0,
}


# --- data -----------------------------------------------------------------------------------------


@cache
def data(kind: str) -> tuple[Any, Any]:
    """Return X and y; the legacy generator gives the same numbers for every version of NumPy."""
    rng = np.random.RandomState(3)
    X, noise = rng.standard_normal((N, FEATURES)), 0.1 * rng.standard_normal((N, 3))
    score = X[:, :3] + noise
    pictures = rng.randint(0, 256, (12, int(np.prod(SHAPE)))).astype(np.uint8)
    large = rng.randint(0, 256, (8, 3072)).astype(np.uint8)
    labels = np.argmax(score, axis=1)
    return {
        "classes": (X, labels),
        "names": (X, np.asarray(["cat", "dog", "eel"])[labels]),
        "binary": (X, (score[:, 0] > 0).astype(np.int64)),
        "multilabel": (X, (score > 0).astype(np.int64)),
        "real": (X, score[:, 0] - X[:, 4]),
        "reals": (X, score[:, :2]),
        "counts": (X, np.floor(np.exp(score[:, 0].clip(-2, 2)))),
        "fractions": (X, 1 / (1 + np.exp(-score[:, :2]))),
        "shares": (X, np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)),
        "float32": (X.astype(np.float32), labels),
        "float32 real": (X.astype(np.float32), score[:, 0].astype(np.float32)),
        "sparse": (csr_matrix(np.where(np.abs(X) > 0.7, X, 0)), labels),
        "pictures": (pictures, np.arange(12) % 3),
        "float pictures": (pictures.astype(np.float64) / 255, np.arange(12) % 3),
        "cifar": (large, np.arange(8)),
        "fashion": (large[:, :784], np.arange(8)),
    }[kind]


# --- functions that a user may give ---------------------------------------------------------------


def cubic(x, *, xp):
    return x + 0.1 * x**3, lambda dy: dy * (1 + 0.3 * x**2)


def log_cosh(outputs, targets, *, xp):
    error = outputs - targets
    losses = xp.sum(xp.log(xp.exp(error) + xp.exp(-error)), axis=-1)
    return losses, lambda dlosses: dlosses[..., None] * xp.tanh(error)


def half_right(model, X, y):
    return float(np.mean(model.predict(X) == y)) / 2


# --- what is done with an estimator ---------------------------------------------------------------


def fit(model, X, y):
    return model.fit(X, y)


def fit_weighted(model, X, y):
    return model.fit(X, y, sample_weight=np.linspace(0, 2, len(y)))


def fit_with_validation(model, X, y):
    return model.fit(X[:22], y[:22], X_val=X[22:], y_val=y[22:])


def fit_twice(model, X, y):
    return model.fit(X, y).fit(X, y)


def continue_with_other_rate(model, X, y):
    return model.fit(X, y).set_params(learning_rate_init=0.003).fit(X, y)


def partial_fits(model, X, y):
    known = {"classes": np.unique(y)} if isinstance(model, MLPClassifier) else {}
    model.partial_fit(X[:16], y[:16], **known)
    return model.partial_fit(X[16:], y[16:]).partial_fit(X, y)


def pickle_and_continue(model, X, y):
    return pickle.loads(pickle.dumps(model.fit(X, y))).partial_fit(X, y)  # noqa: S301


def save_and_continue(model, X, y):
    with tempfile.TemporaryDirectory() as folder:
        save_model(model.fit(X, y), Path(folder) / "model")
        return load_model(Path(folder) / "model").partial_fit(X, y)


def move_and_continue(model, X, y):
    return model.fit(X, y).to("numpy").partial_fit(X, y)


def evaluate(model, X, y):
    model.fit(X, y)
    scores = model.evaluate(X, y)
    model.observed = dict(scores) if isinstance(scores, dict) else {"evaluate": scores}
    return model


# --- the grid -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A training: data, settings and what is done, and where it differs from others.

    ``precision`` is what it computes in. ``is_core`` cases run on every backend in the fast tests.
    """

    kind: str = "classes"
    settings: dict[str, Any] = field(default_factory=dict)
    act: Callable[[Any, Any, Any], Any] = fit
    precision: str = "float64"
    recipe: str | None = None
    is_core: bool = False

    @property
    def is_regression(self) -> bool:
        return self.kind in ("real", "reals", "counts", "fractions", "shares", "float32 real")

    def make(self, spec: str) -> Any:
        """Return the estimator for a backend."""
        name, _, device = spec.partition(":")
        place = {"backend": name, "device": device or None}
        if self.recipe is not None:
            model = MLPClassifier.from_recipe(self.recipe, **self.settings, **place)
            # Wide blocks take seconds a step, and a few layers have each kind.
            n_layers = 3 if self.recipe == "record" else 4
            return model.set_params(hidden_layer_sizes=model.hidden_layer_sizes[:n_layers])
        kind = MLPRegressor if self.is_regression else MLPClassifier
        return kind(**copy.deepcopy(SETTINGS | self.settings), **place)  # A RandomState moves on.


CASES: dict[str, Case] = {}


def add(name: str, kind: str = "classes", act: Any = fit, core: bool = False, **settings: Any):
    precision = {"f": "float32", "b": "bfloat16"}.get(settings.get("precision", "")[:1], "float64")
    if settings.get("precision", "") == "float64":
        precision = "float64"
    elif kind.startswith("float32") or kind == "pictures":
        precision = "float32" if precision == "float64" else precision
    assert name not in CASES, name
    CASES[name] = Case(kind, settings, act, precision, is_core=core)


for solver in ("sgd", "adam", "adamw", "rmsprop", "lion", "muon", "beta_lasso", "lbfgs"):
    add(f"solver {solver}", solver=solver, core=solver in ("sgd", "adam"))
add("solver sgd without Nesterov", solver="sgd", nesterovs_momentum=False, momentum=0.5)
add("solver adam, settings", solver="adam", beta_1=0.8, beta_2=0.9, epsilon=1e-4, alpha=0.1)
add("solver lbfgs, real values", "real", solver="lbfgs", alpha=0.1)
RULES = {
    "SGD": SGD(momentum=0.7, nesterov=False),
    "Adam": Adam(beta_1=0.7),
    "AdamW": AdamW(weight_decay=0.5),
    "BetaLasso": BetaLasso(l1=1e-3, beta=2.0),
    "Lion": Lion(weight_decay=0.3),
    "Muon": Muon(scale="original", ns_polynomial="jordan", ns_steps=2, weight_decay=0.3),
    "Muon without Nesterov": Muon(nesterov=False, adam_rate=0.5),
    "RMSprop": RMSprop(rho=0.8, momentum=0.5),
    "ByKind": ByKind(Muon(), SGD(), Lion(), vector_rate=2.0, head_rate=0.25),
}
for name, rule in RULES.items():
    add(f"rule {name}", solver=rule, core=name == "ByKind")

add("loss log_loss, binary", "binary", core=True)
add("loss log_loss, label smoothing", label_smoothing=0.1)
add("loss log_loss, binary, label smoothing", "binary", label_smoothing=0.1)
add("loss log_loss, softmax of two", "binary", output_activation="softmax")
add("loss log_loss, one against the rest", output_activation="logistic")
add("loss log_loss, multilabel", "multilabel")
add("loss focal", loss="focal")
add("loss focal, multilabel", "multilabel", loss="focal")
add("loss SoftmaxFocal", loss=losses.SoftmaxFocal(gamma=1.0))
add("loss BinaryFocal", "binary", loss=losses.BinaryFocal(gamma=0.5))
add("loss Through", output_activation="logistic", loss=losses.Through(losses.Huber(), "logistic"))
for loss, kind in {
    "squared_error": "real",
    "absolute_error": "reals",
    "huber": "real",
    "quantile": "reals",
    "poisson": "counts",
}.items():
    add(f"loss {loss}", kind, loss=loss, core=loss == "squared_error")
add("loss squared_error, several", "reals")
add("loss Huber", "reals", loss=losses.Huber(delta=0.3))
add("loss Quantile", "real", loss=losses.Quantile(0.2))
add("loss BinaryCrossEntropy, fractions", "fractions", loss=losses.BinaryCrossEntropy(0.1))
add("loss SoftmaxCrossEntropy, shares", "shares", loss=losses.SoftmaxCrossEntropy())
add("loss of a function", "reals", loss=log_cosh)
add("output logistic", "fractions", output_activation="logistic")

PAIRS = (
    ("identity", "logistic"),
    ("tanh", "leaky_relu"),
    ("elu", "gelu"),
    ("silu", "softplus"),
)
for first, second in PAIRS:
    add(f"activation {first} and {second}", activation=[first, second], core=first == "elu")
add("activation of a function", activation=cubic)

add("normalization layer", normalization="layer", core=True)
add("normalization batch", normalization="batch", solver="sgd", core=True)
add("residual", hidden_layer_sizes=(6, 6, 6), residual=True)
# With Adam the bias before a batch normalization would follow the rounding of a gradient of zero.
everything = {
    "solver": "sgd",
    "residual": True,
    "dropout": 0.2,
    "activation": "gelu",
    "ema_decay": 0.8,
}
add("residual, batch", hidden_layer_sizes=(6, 6), normalization="batch", **everything)
add("dropout", dropout=[0.3, 0.5], core=True)
add("dropout of inputs", input_dropout=0.3, dropout=0.1)
hidden = (Project(8), Branch((16, 8)), Blocks((2, 4), mixed=(1,), width=3))
add("hidden objects", hidden_layer_sizes=hidden, activation="gelu")
hidden = (Blocks((2, 3), (0,)), Branch((Blocks((2, 3), (1,)), Project(6))), 5)
add("hidden objects, layer", hidden_layer_sizes=hidden, normalization="layer", solver="muon")
hidden = (Project(8), Branch((16, 8)), Branch((16, 8)))
add(
    "hidden objects, batch",
    hidden_layer_sizes=hidden,
    normalization="batch",
    dropout=0.2,
    solver="sgd",
)

views = [Flip(SHAPE), Shift(SHAPE, pixels=1)]
add("pictures, all", "pictures", core=True, augmentation=[
    *views, Cutout(SHAPE, size=3), ColorJitter(SHAPE), Mixup(alpha=0.8),
], input_scaling="standardize", tta=views)  # fmt: skip
add("pictures, Flip", "pictures", augmentation=Flip(SHAPE, alternate=True), tta=Flip(SHAPE))
zero = Shift(SHAPE, pixels=2, padding="zero")
add("pictures, Shift", "float pictures", augmentation=[zero], tta=[Shift(SHAPE, pixels=2)])
add("pictures, Cutout", "float pictures", augmentation=Cutout(SHAPE, size=4))
add("pictures, values", "float pictures", augmentation=[ColorJitter(SHAPE), Mixup()], dropout=0.2)
add("pictures, reals", "reals", augmentation=[Flip((1, 2, 3)), Mixup(alpha=0.5)])
add("pictures, streamed", "pictures", placement="streamed", augmentation=views)

for scaling in ("standardize", "zca", "pca"):
    add(f"scaling {scaling}", input_scaling=scaling, core=scaling == "zca")
add("scaling Whiten", input_scaling=Whiten("pca", n_components=4, epsilon=0.1))
add("scaling of integers", "pictures", input_scaling="standardize")
add("scaling of sparse", "sparse", input_scaling="standardize")

stop = {"early_stopping": True, "validation_fraction": 0.3, "max_iter": 6, "n_iter_no_change": 2}
add("early stopping", **stop)
add("early stopping, loss", scoring="loss", core=True, **stop)
add("early stopping, scorer's name", scoring="f1_macro", **stop)
add("early stopping, scorer", scoring=half_right, **stop)
add("early stopping, binary", "binary", **stop)
add("early stopping, real values", "reals", **stop)
add("early stopping, batch, average", normalization="batch", solver="sgd", ema_decay=0.7, **stop)
add("validation given", act=fit_with_validation, normalization="batch", solver="sgd")
add("validation given, early stopping", act=fit_with_validation, **stop)
add("stops at the loss", tol=10.0, max_iter=6, n_iter_no_change=2)

add("warm start", act=fit_twice, warm_start=True, core=True)
add("warm start, other rate", act=continue_with_other_rate, warm_start=True, learning_rate="cosine")
add("warm start, lbfgs", act=fit_twice, warm_start=True, solver="lbfgs")
add("warm start, streamed", act=fit_twice, warm_start=True, placement="streamed", dropout=0.2)
add("fit twice", act=fit_twice, solver="lion")
add("partial_fit", act=partial_fits, learning_rate="cosine", core=True)
add("partial_fit, batch", act=partial_fits, normalization="batch", solver="sgd", ema_decay=0.9)
add("partial_fit, real values", "reals", act=partial_fits, dropout=0.2)
add("pickle", act=pickle_and_continue, normalization="layer", ema_decay=0.9)
add("save_model", act=save_and_continue, input_scaling="standardize", solver="muon")
add("save_model, real values", "reals", act=save_and_continue, normalization="batch", solver="sgd")
add("to", act=move_and_continue, dropout=0.2, core=True)
add("evaluate", act=evaluate)

add("class weights", class_weight={0: 2.0, 2: 0.5})
add("class weights, balanced", "names", act=fit_weighted, class_weight="balanced")
add("sample weights", act=fit_weighted, core=True)
add("sample weights, real values", "reals", act=fit_weighted, loss="huber")
add("sample weights, multilabel", "multilabel", act=fit_weighted)
add("sample weights, lbfgs", act=fit_weighted, solver="lbfgs")
add("sample weights, early stopping", act=fit_weighted, scoring="loss", **stop)
add("sparse", "sparse")
add("sparse, lbfgs", "sparse", solver="lbfgs")
add("streamed", placement="streamed", core=True)
add("streamed, whitened", placement="streamed", input_scaling="pca", input_dropout=0.2)
add("clipped gradients", max_grad_norm=0.1, core=True)
add("average of weights", ema_decay=0.7, max_grad_norm=0.5, solver="sgd")
add("not shuffled", shuffle=False)
add("one batch", batch_size="auto", hidden_layer_sizes=3)
add("RandomState", random_state=np.random.RandomState(4))
add("several at once", normalization="layer", dropout=0.2, input_dropout=0.1, max_grad_norm=1.0,
    ema_decay=0.9, label_smoothing=0.1, learning_rate="onecycle", residual=True,
    hidden_layer_sizes=(6, 6), solver="adamw", input_scaling="standardize",
    class_weight="balanced", act=fit_weighted)  # fmt: skip

for schedule in ("invscaling", "adaptive"):
    add(f"schedule {schedule}", solver="sgd", learning_rate=schedule,
        tol=10.0, n_iter_no_change=1)  # fmt: skip
for schedule in ("warmup", "cosine", "onecycle", "linear"):
    add(f"schedule {schedule}", learning_rate=schedule)
warm = schedules.LinearWarmup(0.3, then=schedules.Cosine(0.1))
add("schedule objects", learning_rate=warm, solver=Lion())

add("precision float32", "float32", core=True)
add("precision float32 of float64", precision="float32", normalization="layer", activation="gelu")
add("precision float64 of float32", "float32", precision="float64", dropout=0.2)
add("precision float32, real values", "float32 real", solver="sgd", normalization="batch")
add("precision float32, lbfgs", "float32", solver="lbfgs")
add("precision bf16", precision="bf16")
add("precision bf16, several", precision="bf16", normalization="layer", dropout=0.2, solver="muon")

for recipe in recipe_names():
    kind = "fashion" if recipe == "fashion-mnist" else "cifar"
    CASES[f"recipe {recipe}"] = Case(
        kind,
        {"batch_size": 4, "max_iter": 1, "max_time": None, "precision": "float32",
         "random_state": 0},
        precision="float32",
        recipe=recipe,
        is_core=recipe == "fashion-mnist",
    )  # fmt: skip


# --- what is observed -----------------------------------------------------------------------------

LISTS = ("coefs_", "intercepts_", "norms_", "moments_")
NUMBERS = (
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "validation_loss_curve_",
    "best_validation_score_",
    "n_iter_",
    "t_",
    "n_layers_",
    "n_outputs_",
)


def observe(model: Any, X: Any) -> dict[str, np.ndarray]:
    """Return what the fitted model has learned, reports and predicts, as arrays of NumPy."""
    found: dict[str, Any] = {}
    for name in LISTS:
        for i, entry in enumerate(getattr(model, name, [])):
            for j, array in enumerate(entry if isinstance(entry, tuple) else (entry,)):
                found[f"{name}[{i}]" + (f"[{j}]" if isinstance(entry, tuple) else "")] = array
    for name in NUMBERS:
        value = getattr(model, name, None)
        found[name] = np.asarray([] if value is None else value)
    found |= getattr(model, "observed", {})
    if X.shape[1] > 500:  # Test-time averaging takes up to 50 views of a picture.
        found["predict_proba"] = model.predict_proba(X[:2])
        return {name: _host(value) for name, value in found.items()}
    found["predict"] = model.predict(X)
    if isinstance(model, MLPClassifier):
        found["predict_proba"] = model.predict_proba(X)
        found["logits"] = model.logits(X)
        if found["predict"].dtype.kind == "U":
            found["predict"] = np.searchsorted(model.classes_, found["predict"])
    return {name: _host(value) for name, value in found.items()}


def _host(value: Any) -> np.ndarray:
    is_array = hasattr(value, "shape") and not isinstance(value, np.generic)
    return np.asarray(get_backend(value).get(value) if is_array else value)


def compute(name: str, mode: str) -> dict[str, np.ndarray] | None:
    """Train a case of the grid and observe it; None where the backend cannot."""
    case, (spec, *by) = CASES[name], mode.split("+")
    if case.precision == "bfloat16" and not spec.startswith(("torch", "jax")):
        return None
    X, y = data(case.kind)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ConvergenceWarning)
        if spec == "numpy":
            stack.enter_context(machine_code("machine code" in by, "all threads" in by))
        return observe(case.act(case.make(spec), X, y), X)


@contextlib.contextmanager
def machine_code(is_wanted: bool, all_threads: bool = False) -> Iterator[None]:
    """Decide whether machine code computes on NumPy, which else follows from the work.

    The seam is the backend's `training(work, n_steps)` and `predicting(work)`.
    """
    kind, most = type(get_backend("numpy")), 10**12
    training, predicting = kind.training, kind.predicting

    def train(self, work, n_steps=1):
        return training(self, most if all_threads else work, most if is_wanted else 0)

    kind.training = train
    kind.predicting = lambda self, work: predicting(self, most if is_wanted else 0)
    try:
        yield
    finally:
        kind.training, kind.predicting = training, predicting


# --- how it is kept and compared ------------------------------------------------------------------

FEW, N_PROJECTIONS = 12, 3


def short(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a few numbers that stand for an array, and what their errors are measured by.

    Small arrays stand for themselves. Of others there are the sum, the sum of absolute values and
    random projections.
    """
    values = array.astype(np.float64).ravel()
    if values.size <= FEW:
        return values, np.full(values.shape, np.max(np.abs(values), initial=0.0))
    rng = np.random.RandomState(values.size % 1000)
    projections = [values @ rng.standard_normal(values.size) for _ in range(N_PROJECTIONS)]
    total, norm = float(np.sum(np.abs(values))), float(np.linalg.norm(values))
    kept = np.asarray([np.sum(values), total, *projections])
    return kept, np.asarray([total, total, *[norm] * N_PROJECTIONS])


def digest(array: np.ndarray) -> str:
    """Return the first half of the SHA-256 of an array's bytes, dtype and shape."""
    content = f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def fingerprint() -> dict[str, Any]:
    """Return what the last bits on NumPy depend on, beside the code."""
    try:
        import numba

        compiler = numba.__version__
    except ImportError:
        compiler = None
    blas = [
        {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    blas = sorted({json.dumps(pool, sort_keys=True) for pool in blas})
    return {
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "sklearn": sklearn.__version__,
        "numba": compiler,
        "blas": blas,
        "cpu": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "cores": joblib.cpu_count(),
    }


def entry(array: np.ndarray) -> dict[str, Any]:
    """Return what a file keeps of an array."""
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "values": short(array)[0].tolist(),
        "digest": digest(array),
    }


def compute_all(modes: tuple[str, ...], cases: Any = CASES) -> dict[str, Any]:
    """Return entries by mode, case and array, and print the time of each mode."""
    found: dict[str, Any] = {}
    for mode in modes:
        start, slowest = time.perf_counter(), (0.0, "")
        for case in cases:
            begun = time.perf_counter()
            arrays = compute(case, mode)
            if arrays is not None:
                found.setdefault(mode, {})[case] = {n: entry(a) for n, a in arrays.items()}
            slowest = max(slowest, (time.perf_counter() - begun, case))
        seconds = time.perf_counter() - start
        print(
            f"{mode}: {seconds:.1f} s, the longest is {slowest[1]!r}, {slowest[0]:.1f} s",
            flush=True,
        )
    return found


def usable_modes() -> tuple[str, ...]:
    """Return the modes whose libraries are installed."""
    usable = []
    for mode in MODES:
        spec, *by = mode.split("+")
        name, _, device = spec.partition(":")
        with contextlib.suppress(ImportError, RuntimeError):
            get_backend(name, device or None)
            if by:
                import numba  # noqa: F401
            usable.append(mode)
    return tuple(usable)


def record() -> None:
    """Write the reference: values of the first mode that can train a case, and NumPy's digests."""
    found = compute_all(NUMPY_MODES)
    found |= compute_all(("torch:cpu",), [name for name in CASES if name not in found["numpy"]])
    lines = []
    for case in CASES:
        plain = found["numpy"].get(case) or found["torch:cpu"][case]
        for array, kept in plain.items():
            both = [found[mode].get(case, {}).get(array) for mode in NUMPY_MODES]
            kept = {key: value for key, value in kept.items() if key != "digest"}
            kept["digests"] = [found and found["digest"] for found in both]
            lines.append(f"{json.dumps(f'{case}/{array}')}: {json.dumps(kept)}")
    head = f'"fingerprint": {json.dumps(fingerprint())}'
    REFERENCE.write_text("{\n" + ",\n".join([head, *lines]) + "\n}\n")
    print(f"{REFERENCE}: {len(CASES)} cases, {len(lines)} arrays")


def compare(old: dict[str, Any], modes: tuple[str, ...]) -> int:
    """Compare with a dump bit for bit; print what differs and return for how many arrays."""
    n_different = 0
    for mode in modes:
        new = compute_all((mode,))[mode]
        if mode not in old:
            print(f"{mode}: not in the dump")
            continue
        differences = []
        for case in dict.fromkeys([*old[mode], *new]):
            then, now = old[mode].get(case, {}), new.get(case, {})
            for array in dict.fromkeys([*then, *now]):
                told = difference(then.get(array), now.get(array))
                differences += [f"{case!r}, {array}: {told}"] if told else []
        n_different += len(differences)
        print(f"{mode}: {len(new)} cases, {len(differences)} arrays differ")
        for line in differences[:10]:
            print(f"  {line}")
    return n_different


def difference(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str:
    """Return how two entries differ, "" if they do not."""
    if old is None or new is None:
        return "only in the " + ("new" if old is None else "old")
    for key in ("dtype", "shape"):
        if old[key] != new[key]:
            return f"{key} was {old[key]} and is {new[key]}"
    if old["digest"] == new["digest"]:
        return ""
    gaps = np.abs(np.asarray(old["values"]) - np.asarray(new["values"]))
    if not np.any(gaps > 0):
        return "bits differ, its recorded numbers do not"
    at = int(np.nanargmax(gaps))
    return f"was {old['values'][at]!r} and is {new['values'][at]!r} (number {at} that is kept)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--record", action="store_true", help=f"write {REFERENCE.name}")
    action.add_argument("--dump", type=Path, metavar="FILE", help="write what all modes compute")
    action.add_argument("--against", type=Path, metavar="FILE", help="compare with such a file")
    parser.add_argument("--modes", default="", help=f"comma-separated, of {', '.join(MODES)}")
    options = parser.parse_args()
    modes = tuple(filter(None, options.modes.split(","))) or usable_modes()
    if options.record:
        record()
        return 0
    if options.dump:
        found: dict[str, Any] = {}
        for mode in modes:  # What is done is kept if the rest is interrupted.
            found |= compute_all((mode,))
            options.dump.write_text(json.dumps(found))
        return 0
    return int(compare(json.loads(options.against.read_text()), modes) > 0)


if __name__ == "__main__":
    sys.exit(main())
