"""The estimator: scikit-learn's contract on arrays of any library, and the state after a fit."""

import copy
import pickle
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers import problem, small, tolerance
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from trainers import assert_close

from mlp_xp import MLP, MLPClassifier, MLPEnsembleClassifier, MLPRegressor, get_backend
from mlp_xp.saving import load_model, save_model

X, y = problem()
pytestmark = pytest.mark.every_device


@pytest.mark.parametrize(("n", "features"), [(5, 3), (5, 1), (1, 1)])
def test_fit_works_with_one_class_one_feature_or_one_sample(n, features):
    X = np.ones((n, features))
    model = small(batch_size="auto").fit(X, ["only"] * n)
    assert model.predict(X).tolist() == ["only"] * n
    assert model.predict_proba(X).tolist() == [[1.0]] * n
    assert np.isfinite(model.loss_)


@pytest.mark.parametrize(
    ("dtype", "classes"), [("float32", 3), ("float64", 2), ("float64", 3), ("uint8", 2)]
)
def test_computation_runs_on_the_library_and_device_of_the_data(backend, dtype, classes):
    X, y = problem(classes=classes)
    X = (40 * X + 100).clip(0, 255).astype(dtype)
    scaled = {"input_scaling": "standardize"}
    reference = small(**scaled).fit(X, y)
    X_here, y_here = backend.put(X), backend.put(y)
    model = small(**scaled).fit(X_here, y_here)
    assert model.__sklearn_tags__().array_api_support
    assert all(get_backend(array) == backend for array in (*model.coefs_, *model.intercepts_))
    expected = "float32" if dtype == "uint8" else dtype
    assert {str(backend.get(array).dtype) for array in model.coefs_} == {expected}
    close = {"rtol": 0, "atol": 100 * tolerance(expected, 60)}
    np.testing.assert_allclose(model.loss_curve_, reference.loss_curve_, **close)
    labels, p = model.predict(X_here), model.predict_proba(X_here)
    assert get_backend(labels) == get_backend(p) == backend
    np.testing.assert_allclose(backend.get(p), reference.predict_proba(X), **close)
    assert model.score(X_here, y_here) == pytest.approx(reference.score(X, y), abs=0.04)
    # The same model predicts for arrays of NumPy, and answers in NumPy.
    assert type(model.predict_proba(X)) is np.ndarray
    np.testing.assert_allclose(model.predict_proba(X), backend.get(p), **close)


def results(model, X):
    """Return every kind of result for X."""
    found = [model.predict(X), model.hidden_activations(X), model.input_gradient(X, y)]
    if hasattr(model, "predict_proba"):
        found += [model.predict_proba(X), model.predict_log_proba(X), model.logits(X)]
    return found


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_model_fitted_on_numpy_returns_numpy_for_arrays_of_every_library(backend, kind):
    X_here = backend.put(X)
    model = kind(max_iter=2, learning_rate="cosine").fit(X, y)
    for found, expected in zip(results(model, X_here), results(model, X), strict=True):
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, atol=1e-12)
    ensemble = MLPEnsembleClassifier(MLPClassifier(max_iter=2, learning_rate="cosine"), 2)
    ensemble.fit(X, y)
    both = (
        *ensemble.predict(X_here, return_std=True),
        *ensemble.predict_proba(X_here, return_std=True),
    )
    assert {type(found) for found in both} == {np.ndarray}


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_model_fitted_on_library_arrays_follows_its_input_until_pickled(backend, kind):
    X_here = backend.put(X)
    model = kind(max_iter=2, learning_rate="cosine").fit(X_here, y)
    pickled = pickle.loads(pickle.dumps(model))  # noqa: S301
    moved = pickled.to(backend.name, backend.device)
    for each, expected in ((model, backend), (pickled, get_backend("numpy")), (moved, backend)):
        assert {get_backend(found) for found in results(each, X_here)} == {expected}
        assert {get_backend(found) for found in results(each, X)} == {get_backend("numpy")}


def test_an_explicit_backend_returns_arrays_of_the_callers_library(on):
    model, reference = small(**on).fit(X, y), small().fit(X, y)
    p = model.predict_proba(X)
    assert {type(array) for array in (*model.coefs_, model.predict(X), p)} == {np.ndarray}
    np.testing.assert_allclose(model.loss_curve_, reference.loss_curve_, rtol=1e-10)
    assert_close(model.coefs_, reference.coefs_, atol=1e-9)
    # A fitted model moves to another backend.
    model.set_params(backend="numpy", device=None)
    np.testing.assert_allclose(model.predict_proba(X), p, rtol=0, atol=tolerance("float64", 8))
    assert model.partial_fit(X, y).n_iter_ == 6


def test_partial_fit_calls_match_epochs_of_fit(backend):
    """Two epochs of fit equal two calls of partial_fit, with or without pickling in between."""
    X_here, settings = backend.put(X), {"max_iter": 2, "learning_rate": "cosine"}
    fitted = small(**settings).fit(X, y)
    straight = small(**settings).partial_fit(X_here, y, classes=[0, 1, 2])
    first = backend.get(straight.coefs_[0]).copy()
    pickled = pickle.loads(pickle.dumps(straight))  # noqa: S301
    for model in (straight, pickled):
        assert model.partial_fit(X_here, y).n_iter_ == 2
        assert_close(map(backend.get, model.coefs_), fitted.coefs_, atol=1e-9)
        np.testing.assert_allclose(model.loss_curve_, fitted.loss_curve_, rtol=1e-9)
    assert not np.array_equal(backend.get(straight.coefs_[0]), first)


def test_a_pickle_contains_host_arrays(backend):
    model = small(input_scaling="standardize").fit(backend.put(X), y)
    stored = pickle.dumps(model)
    assert {type(array) for array in pickle.loads(stored).coefs_} == {np.ndarray}  # noqa: S301
    for library in (b"torch", b"jax", b"array_api_strict", b"cupy"):
        assert library not in stored
    np.testing.assert_array_equal(copy.deepcopy(model).predict(X), model.predict(X))


OPEN = """
import pickle, sys
class Missing:
    def find_spec(name, path=None, target=None):
        if name.partition('.')[0] == sys.argv[1]:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing)
import numpy as np
for model, X, y, expected in pickle.load(open('models', 'rb')):
    found = model.set_params(backend=None, device=None).predict_proba(X)
    assert {type(array) for array in (*model.coefs_, found)} == {np.ndarray}
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    model.set_params(max_iter=1, warm_start=True).fit(X, y)
"""


@pytest.mark.matrix
@pytest.mark.libraries("torch", "jax", "array_api_strict", "cupy")
def test_a_pickle_loads_without_the_backend_installed(backend, on, tmp_path):
    models = []
    for model in (small(**on).fit(X, y), small(normalization="batch").fit(backend.put(X), y)):
        models.append((model, X, y, model.predict_proba(X)))
    (tmp_path / "models").write_bytes(pickle.dumps(models))
    command = [sys.executable, "-c", OPEN, backend.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_precision_setting_overrides_the_dtype_of_the_data():
    single = X.astype(np.float32)
    assert small(precision="float32").fit(X, y).coefs_[0].dtype == np.float32
    assert small(precision="float64").fit(single, y).coefs_[0].dtype == np.float64
    assert small().fit(single, y).predict_proba(X).dtype == np.float32
    strict = {"backend": "array_api_strict", "device": "no_float64"}
    assert small(**strict).fit(single, y).loss_ > 0
    assert small(**strict).fit(X, y).coefs_[0].dtype == np.float32
    with pytest.raises(ValueError, match="precision='float64' is not supported"):
        small(precision="float64", **strict).fit(X, y)


@pytest.mark.parametrize("base", [MLP, MLPRegressor])
def test_subclass_can_define_its_own_constructor(base, tmp_path):
    class Mine(base):
        def __init__(self, alpha=1.0, mine=2):
            super().__init__(alpha=alpha, activation="tanh", max_iter=3, learning_rate="cosine")
            self.mine = mine

    model = clone(Mine().set_params(alpha=0.5))
    Mine._get_param_names().append("more")  # A subclass may extend the list.
    assert (model.get_params(), repr(model)) == ({"alpha": 0.5, "mine": 2}, "Mine(alpha=0.5)")
    assert GridSearchCV(model, {"mine": [3, 4]}, cv=2).fit(X, y).best_params_["mine"] in (3, 4)
    assert (model.fit(X, y).n_iter_, model.activation) == (3, "tanh")
    assert model.partial_fit(X, y).n_iter_ == 4
    moved = model.to("array_api_strict")
    np.testing.assert_allclose(moved.predict(X), model.predict(X), atol=tolerance("float64"))
    with pytest.raises(ValueError, match="The 'alpha' parameter of Mine must be"):
        Mine(alpha=-1.0).fit(X, y)
    save_model(model, tmp_path)
    np.testing.assert_array_equal(load_model(tmp_path).predict(X), model.predict(X))


@pytest.mark.parametrize("n", [3, 1000])
def test_predictions_and_weights_are_writable(on, n, monkeypatch):
    monkeypatch.setattr("mlp_xp.training.inference.inference._BATCH", 600)
    X, y = problem(1000)
    settings = {"max_iter": 1, "learning_rate": "cosine", "batch_size": 100, **on}
    model, two = small(**settings).fit(X, y), small(**settings).fit(X, y > 0)
    for method in (
        model.predict, model.predict_proba, model.predict_log_proba, model.logits,
        model.hidden_activations, two.predict_proba, two.logits,
    ):  # fmt: skip
        first = method(X[:n])
        kept = first.copy()
        first[0] = 7
        np.testing.assert_array_equal(method(X[:n]), kept)
        np.testing.assert_array_equal(first[1:], kept[1:])
        assert np.all(first[0] == 7)
    model.coefs_[-1][:] = 0.0
    assert np.ptp(model.logits(X), axis=0).max() == 0.0


CLASSES = [0, 1, 2]


def test_memory_layout_does_not_change_results():
    expected = small().fit(X, y).coefs_[0]
    for data in (pd.DataFrame(X), np.asfortranarray(X), np.ascontiguousarray(X[::-1])[::-1]):
        np.testing.assert_allclose(small().fit(data, y).coefs_[0], expected, rtol=1e-12)


def test_a_warm_start_never_ends_worse_than_it_started():
    held = {"X_val": X[30:], "y_val": y[30:]}
    settings = {"learning_rate_init": 0.1, "max_iter": 40, "n_iter_no_change": 2}
    model = small(**settings, early_stopping=True, warm_start=True).fit(X[:30], y[:30], **held)
    first = model.best_validation_score_
    model.set_params(learning_rate_init=3.0).fit(X[:30], y[:30], **held)
    assert model.score(X[30:], y[30:]) == model.best_validation_score_ >= first
    # Other metrics start from the network's outputs.
    model.set_params(scoring="loss").fit(X[:30], y[:30], **held)
    loss = model.evaluate(X[30:], y[30:])["loss"]
    assert model.best_validation_score_ == pytest.approx(-loss)


def test_ctrl_c_ends_the_callers_loop_of_partial_fits():
    calls = []

    def scorer(model, X, y):
        calls.append(model.n_iter_)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return 0.0

    model = small(scoring=scorer)
    with pytest.raises(KeyboardInterrupt):
        all(model.partial_fit(X, y, classes=CLASSES, X_val=X, y_val=y) for _ in range(5))
    assert model.n_iter_ == len(model.loss_curve_) < 4


@pytest.mark.parametrize("learning_rate", ["cosine", "linear"])
def test_schedule_advances_per_partial_fit_call_regardless_of_batch_count(learning_rate):
    (X, y), sizes = problem(1000), [100, 1000, 50, 10, 200, 1000, 20, 30]
    settings = {"learning_rate": learning_rate, "max_iter": len(sizes), "batch_size": 10}
    model, even = small(**settings), small(**settings)
    for n in sizes:
        model.partial_fit(X[:n], y[:n], classes=CLASSES)
        even.partial_fit(X[:100], y[:100], classes=CLASSES)
        model = pickle.loads(pickle.dumps(model))  # noqa: S301
    rates, expected = ([r.learning_rate for r in each.history_] for each in (model, even))
    assert rates == sorted(rates, reverse=True)
    assert rates[-2] > rates[-1] == 0.0
    np.testing.assert_allclose(rates, expected, rtol=0, atol=0.0002)


def test_an_unpickled_model_continues_with_the_same_learning_rate():
    adaptive = {"learning_rate": "adaptive", "solver": "sgd", "tol": 0.1, "n_iter_no_change": 2}
    for settings in (adaptive, {"learning_rate": "cosine", "warm_start": True}):
        model = small(**{"max_iter": 12} | settings).fit(X, y)
        model.set_params(max_iter=20).partial_fit(X, y)
        again = pickle.loads(pickle.dumps(model)).partial_fit(X, y)  # noqa: S301
        model.partial_fit(X, y)
        assert again.history_[-1].learning_rate == model.history_[-1].learning_rate
        np.testing.assert_array_equal(again.coefs_[0], model.coefs_[0])


def test_adaptive_learning_rate_counts_partial_fit_calls():
    model = small(learning_rate="adaptive", solver="sgd", tol=10.0, n_iter_no_change=3)
    for _ in range(10):
        model.partial_fit(X, y, classes=CLASSES)
    rates = [record.learning_rate for record in model.history_]
    assert (rates[0], rates[-1]) == (0.001, pytest.approx(0.001 / 25))
    model.set_params(max_iter=10).fit(X, y).partial_fit(X, y)
    rates = [record.learning_rate for record in model.history_]
    assert (rates[0], rates[-1]) == (0.001, pytest.approx(0.001 / 25))
    model.set_params(learning_rate="constant").partial_fit(X, y)
    assert model.history_[-1].learning_rate == 0.001


def test_a_copy_shares_nothing_with_the_original():
    model = small().fit(X, y)
    before, coefs = model.predict_proba(X), []
    for twin in (model.to("numpy"), copy.deepcopy(model), copy.copy(model)):
        coefs.append(twin.partial_fit(X, y).coefs_[0])
        assert (len(model.history_), len(twin.history_), len(model.loss_curve_)) == (5, 6, 5)
        np.testing.assert_array_equal(coefs[0], coefs[-1])
        np.testing.assert_array_equal(model.predict_proba(X), before)
    twin = copy.copy(model)
    model.partial_fit(X, y)
    np.testing.assert_array_equal(twin.predict_proba(X), before)


def test_failed_fit_does_not_advance_the_random_state():
    states = [np.random.RandomState(5) for _ in range(2)]
    with pytest.raises(ValueError, match="too small"):
        small(early_stopping=True, random_state=states[0], validation_fraction=0.01).fit(X, y)
    np.testing.assert_array_equal(*(small(random_state=s).fit(X, y).coefs_[0] for s in states))


def test_multilabel_class_names_are_kept():
    labels, model = np.eye(3, dtype=int)[y], small()
    for _ in range(2):
        model.partial_fit(X, labels, classes=[10, 20, 30])
    assert model.classes_.tolist() == [10, 20, 30]
    with pytest.raises(ValueError, match="one entry for each of the 3 columns of y, got 2"):
        small().partial_fit(X, labels, classes=[10, 20])


def test_a_clipped_batch_size_warns_once():
    with pytest.warns(UserWarning, match="`batch_size` 1000 larger than the sample size 60") as w:
        small(batch_size=1000).fit(X, y)
    assert sum("larger than" in str(each.message) for each in w) == 1
    with pytest.warns(ConvergenceWarning) as w:  # L-BFGS has no batches.
        small(batch_size=1000, solver="lbfgs").fit(X, y)
    assert len(w) == 1


@pytest.mark.parametrize("targets", [y > 0, np.asarray(["ant", "bee", "cat"])[y], X[:, :2]])
def test_from_weights_builds_a_trainable_estimator(targets):
    kind = MLPRegressor if targets.dtype.kind == "f" else MLPClassifier
    model = small(kind, hidden_layer_sizes=(5, 4), activation="tanh").fit(X, targets)
    settings = {"activation": "tanh", "random_state": 3}
    settings |= {} if kind is MLPRegressor else {"classes": model.classes_}
    made = kind.from_weights(model.coefs_, model.intercepts_, **settings)
    for method in ("predict",) if kind is MLPRegressor else ("predict", "predict_proba"):
        np.testing.assert_array_equal(getattr(made, method)(X), getattr(model, method)(X))
    assert (made.hidden_layer_sizes, made.random_state) == ((5, 4), 3)
    before = made.coefs_[0].copy()
    assert (made.partial_fit(X, targets).coefs_[0] != before).any()


def test_from_weights_rejects_inconsistent_shapes():
    W, b = [np.zeros((2, 3))], [np.zeros(3)]
    for coefs, intercepts, classes, message in (
        (W, b, [0, 1, 2, 3], "must have 4 outputs for 4 classes, got 3"),
        (W, b * 2, [0, 1, 2], "the output layer last, got 1 and 2"),
        (W * 2, b * 2, [0, 1, 2], r"coefs_\[1\] must have shape \(3, 3\) .* got \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            MLPClassifier.from_weights(coefs, intercepts, classes=classes)
