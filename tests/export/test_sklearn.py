"""scikit-learn's fitted MLPs become estimators of this package, and the other way around."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.neural_network as theirs
from problems import REAL, TARGETS, X, Y, fitted
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from mlp_xp.export import from_sklearn, to_sklearn
from mlp_xp.optimizers import Lion

PREDICTIONS = ("three classes", "two classes", "text", "several", *REAL)


def predictions(model, what):
    return model.predict(X) if what in REAL else model.predict_proba(X)


@pytest.mark.filterwarnings("ignore:lbfgs failed:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("what", PREDICTIONS)
def test_from_and_back(what, solver):
    kind = theirs.MLPRegressor if what in REAL else theirs.MLPClassifier
    settings = {"hidden_layer_sizes": (7, 5), "activation": "tanh", "random_state": 0}
    given = kind(solver=solver, max_iter=2, **settings)
    given.fit(X, TARGETS[what])
    ours = from_sklearn(given)
    np.testing.assert_allclose(predictions(ours, what), predictions(given, what), rtol=1e-12)
    assert ours.n_iter_ == given.n_iter_
    assert ours.loss_ == given.loss_
    back = to_sklearn(ours)
    np.testing.assert_array_equal(predictions(back, what), predictions(given, what))
    assert back.get_params() == given.get_params()
    if solver == "adam":  # Both go on from the same weights, each with a new optimizer.
        del given._optimizer
        given.partial_fit(X, TARGETS[what])
        for model in (ours, back):
            model.partial_fit(X, TARGETS[what])
            np.testing.assert_allclose(model.coefs_[0], given.coefs_[0], rtol=1e-6)


@pytest.mark.parametrize("scaling", [None, "standardize", "pca"])
@pytest.mark.parametrize("what", PREDICTIONS)
def test_to_sklearn(what, scaling):
    model, _ = fitted(what, input_scaling=scaling, dropout=0.3, ema_decay=0.5)
    exported = to_sklearn(model)
    assert type(exported).__module__.startswith("sklearn.")
    np.testing.assert_allclose(
        predictions(exported, what), predictions(model, what), rtol=1e-9, atol=1e-12
    )
    if what not in REAL:
        np.testing.assert_array_equal(exported.classes_, model.classes_)
    exported.set_params(max_iter=2).partial_fit(X, TARGETS[what])


def test_poisson():
    given = theirs.MLPRegressor("poisson", (4,), max_iter=2, random_state=0).fit(X, np.abs(X[:, 0]))
    ours = from_sklearn(given)
    np.testing.assert_allclose(ours.predict(X), given.predict(X), rtol=1e-12)
    back = to_sklearn(ours)
    assert back.get_params() == given.get_params()
    np.testing.assert_array_equal(back.predict(X), given.predict(X))


def test_objects_of_this_package_become_their_defaults():
    model, _ = fitted(solver=Lion())
    assert to_sklearn(model).solver == "adam"


def test_arrays_are_copies():
    given = theirs.MLPClassifier(3, max_iter=2, random_state=0).fit(X, Y)
    ours = from_sklearn(given)
    back = to_sklearn(ours)
    for name in ("coefs_", "intercepts_"):
        arrays = [getattr(model, name)[0] for model in (given, ours, back)]
        arrays[1][:] = 7.0
        assert not (arrays[0] == 7.0).any()
        assert not (arrays[2] == 7.0).any()


def test_other_estimators_are_not_converted():
    with pytest.raises(NotFittedError):
        from_sklearn(theirs.MLPClassifier())
    with pytest.raises(TypeError, match="must be an MLPClassifier or MLPRegressor"):
        from_sklearn(LogisticRegression())
