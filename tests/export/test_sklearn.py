"""scikit-learn's MLPs become estimators of this package and back; other objects are refused."""

import sys

import numpy as np
import pytest
import sklearn.neural_network as theirs
from helpers import case
from problems import REAL, TARGETS, X, Y, fitted
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import mlp_xp.export as exports
from mlp_xp import MLPClassifier, MLPEnsembleClassifier

PREDICTIONS = ("three classes", "two classes", "text", "several", *REAL, "poisson")
WAYS = {
    "sklearn": exports.to_sklearn,
    "c": exports.to_c,
    "onnx": exports.to_onnx,
    "torch": exports.to_torch,
}


def predictions(model, what):
    return model.predict(X) if what in REAL else model.predict_proba(X)


@pytest.mark.filterwarnings("ignore:lbfgs failed:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("what", PREDICTIONS)
def test_from_sklearn_and_to_sklearn_are_inverse(what, solver):
    y = np.abs(X[:, 0]) if what == "poisson" else TARGETS[what]
    settings = {"hidden_layer_sizes": (7, 5), "activation": "tanh", "random_state": 0}
    settings |= {"loss": "poisson"} if what == "poisson" else {}
    what = "value" if what == "poisson" else what
    kind = theirs.MLPRegressor if what in REAL else theirs.MLPClassifier
    given = kind(solver=solver, max_iter=2, **settings).fit(X, y)
    ours = exports.from_sklearn(given)
    np.testing.assert_allclose(predictions(ours, what), predictions(given, what), rtol=1e-12)
    assert ours.n_iter_ == given.n_iter_
    assert ours.loss_ == given.loss_
    back = exports.to_sklearn(ours)
    np.testing.assert_array_equal(predictions(back, what), predictions(given, what))
    assert back.get_params() == given.get_params()
    assert what in REAL or back.classes_.tolist() == given.classes_.tolist()
    if solver == "adam":  # Both continue from the same weights with a new optimizer.
        del given._optimizer
        given.partial_fit(X, y)
        for model in (ours, back):
            model.partial_fit(X, y)
            np.testing.assert_allclose(model.coefs_[0], given.coefs_[0], rtol=1e-6)
        assert [len(model.loss_curve_) for model in (given, ours, back)] == [3, 3, 3]
    for name in ("coefs_", "intercepts_"):
        first, second, third = (getattr(model, name)[0] for model in (given, ours, back))
        second[:] = 7.0
        assert not (first == 7.0).any()
        assert not (third == 7.0).any()


def test_from_sklearn_ignores_extra_parameters_of_a_subclass():
    class Own(theirs.MLPRegressor):
        def __init__(self, extra=2):
            super().__init__(max_iter=2)
            self.extra = extra

    assert exports.from_sklearn(Own().fit(X, X[:, 0])).max_iter == 2


def test_unsupported_objects_are_rejected_with_advice(export):
    expected = r"must be an estimator or ensemble of mlp_xp, got .* pipeline\[-1\] or search"
    pipeline, search = make_pipeline(MLPClassifier()), GridSearchCV(MLPClassifier(), {})
    for model in (pipeline, search, theirs.MLPClassifier(), None):
        with case(model), pytest.raises(TypeError, match=expected):
            WAYS[export](model)
    ensemble = MLPEnsembleClassifier(fitted()[0], 2, random_state=0)
    for model in (MLPClassifier(), *[ensemble] * (export in ("c", "onnx"))):
        with case(model), pytest.raises(NotFittedError):
            WAYS[export](model)
    if export not in ("c", "onnx"):
        with pytest.raises(TypeError, match=r"has several networks: .* each of its estimators_"):
            WAYS[export](ensemble.fit(X, Y))
    if export == "sklearn":
        with pytest.raises(NotFittedError):
            exports.from_sklearn(theirs.MLPClassifier())
        with pytest.raises(TypeError, match="must be an MLPClassifier or MLPRegressor"):
            exports.from_sklearn(LogisticRegression())


@pytest.mark.parametrize(
    ("call", "library", "extra"),
    [
        (lambda: exports.to_onnx(fitted()[0]), "onnx", "onnx"),
        (lambda: exports.to_torch(fitted()[0]), "torch", "torch"),
        (lambda: exports.from_torch(None), "torch", "torch"),
        (exports.register_skl2onnx, "skl2onnx", "onnx"),
    ],
)
def test_export_without_its_library_says_what_to_install(call, library, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf'pip install -e ".*\[{extra}\]"'):
        call()
