"""The estimator: scikit-learn's contract, on the arrays of any library."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from helpers import problem, small, tolerance
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from trainers import assert_close

from mlp_xp import MLP, MLPRegressor, get_backend
from mlp_xp.backends import installed
from mlp_xp.saving import load_model, save_model

X, y = problem()
pytestmark = pytest.mark.every_device


def test_it_stops_as_scikit_learns_rule_says():
    assert small(tol=10.0, n_iter_no_change=3, max_iter=50).fit(X, y).n_iter_ == 5
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        small(n_iter_no_change=10, max_iter=2).fit(X, y)


@pytest.mark.parametrize("classes", [["no", "yes"], ["ant", "bee", "cat"], [3, 5], [1.0, 2.0, 4.0]])
def test_labels_of_any_kind(classes):
    X, codes = problem(classes=len(classes))
    y = np.asarray(classes)[codes]
    model = small(max_iter=60, learning_rate_init=0.01).fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.predict(X).dtype == y.dtype
    p = model.predict_proba(X)
    assert p.shape == (len(y), len(classes))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(p))


@pytest.mark.parametrize(("n", "features"), [(5, 3), (5, 1), (1, 1)])
def test_one_class_and_one_feature_and_one_sample(n, features):
    X = np.ones((n, features))
    model = small(batch_size="auto").fit(X, ["only"] * n)
    assert model.predict(X).tolist() == ["only"] * n
    assert model.predict_proba(X).tolist() == [[1.0]] * n
    assert np.isfinite(model.loss_)


@pytest.mark.parametrize(
    ("dtype", "classes"), [("float32", 3), ("float64", 2), ("float64", 3), ("uint8", 2)]
)
def test_computation_follows_the_data(backend, dtype, classes):
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


def test_a_named_backend_answers_in_the_callers_library(on):
    model, reference = small(**on).fit(X, y), small().fit(X, y)
    p = model.predict_proba(X)
    assert {type(array) for array in (*model.coefs_, model.predict(X), p)} == {np.ndarray}
    np.testing.assert_allclose(model.loss_curve_, reference.loss_curve_, rtol=1e-10)
    assert_close(model.coefs_, reference.coefs_, atol=1e-9)
    # A fitted model moves to another backend.
    model.set_params(backend="numpy", device=None)
    np.testing.assert_allclose(model.predict_proba(X), p, rtol=0, atol=tolerance("float64", 8))
    assert model.partial_fit(X, y).n_iter_ == 6


def test_partial_fit_goes_on(backend):
    """Two epochs by fit are two calls of partial_fit, pickled in between or not."""
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


def test_a_pickle_holds_host_arrays(backend):
    model = small(input_scaling="standardize").fit(backend.put(X), y)
    stored = pickle.dumps(model)
    assert {type(array) for array in pickle.loads(stored).coefs_} == {np.ndarray}  # noqa: S301
    for library in (b"torch", b"jax", b"array_api_strict", b"cupy"):
        assert library not in stored
    np.testing.assert_array_equal(copy.deepcopy(model).predict(X), model.predict(X))


OPEN = """
import sys
class Missing:
    def find_spec(name, path=None, target=None):
        if name.partition('.')[0] in {0}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing)
import pickle, numpy
for name in {0}:
    print(pickle.load(open(name, 'rb')).predict(numpy.load('X.npy')).tolist())
"""


@pytest.mark.matrix
def test_a_pickle_opens_where_the_library_is_missing(tmp_path):
    np.save(tmp_path / "X.npy", X)
    expected, libraries = [], list(filter(installed, ["torch", "jax", "array_api_strict"]))
    for name in libraries:
        model = small().fit(get_backend(name).put(X), y)
        (tmp_path / name).write_bytes(pickle.dumps(model))
        expected.append(str(np.asarray(model.predict(X)).tolist()))
    command = [sys.executable, "-c", OPEN.format(libraries)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected


def test_precision_is_resolved_once():
    single = X.astype(np.float32)
    assert small(precision="float32").fit(X, y).coefs_[0].dtype == np.float32
    assert small(precision="float64").fit(single, y).coefs_[0].dtype == np.float64
    assert small().fit(single, y).predict_proba(X).dtype == np.float32
    strict = {"backend": "array_api_strict", "device": "no_float64"}
    assert small(**strict).fit(single, y).loss_ > 0
    assert small(**strict).fit(X, y).coefs_[0].dtype == np.float32
    with pytest.raises(ValueError, match="precision is 'float64', which device"):
        small(precision="float64", **strict).fit(X, y)


@pytest.mark.parametrize("base", [MLP, MLPRegressor])
def test_a_subclass_may_have_a_constructor_of_its_own(base, tmp_path):
    class Mine(base):
        def __init__(self, alpha=1.0, mine=2):
            super().__init__(alpha=alpha, activation="tanh", max_iter=3, learning_rate="cosine")
            self.mine = mine

    model = clone(Mine().set_params(alpha=0.5))
    Mine._get_param_names().append("more")  # As a subclass may that extends the list.
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
def test_predictions_and_weights_are_the_callers_to_write_to(on, n, monkeypatch):
    monkeypatch.setattr("mlp_xp.training.inference._BATCH", 600)
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
