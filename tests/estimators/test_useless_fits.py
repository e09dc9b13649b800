"""Fits whose training loss ends above the loss of a constant prediction."""

import warnings

import numpy as np
import pytest
import sklearn.model_selection
from helpers import problem
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.estimators.fitting.baseline import constant_loss
from mlp_xp.estimators.targets import ClassTargets, MultilabelTargets, RealTargets
from mlp_xp.model_selection import GridSearchCV
from mlp_xp.nn import losses

X, CODES = problem(n=300)
CODES = np.argmax(X[:, :3], axis=1)
PRICES = 1e5 * (3 + X[:, 0] - X[:, 1])
RATE = {"learning_rate_init": 1e3}
# Settings, X and y that give a useless fit, and what the warning says to type.
USELESS = [
    (MLPRegressor, {}, X, PRICES, {"target_scaling": "standardize"}),
    (MLPRegressor, {}, X, PRICES / 1e9, {"target_scaling": "standardize"}),
    (MLPRegressor, {"loss": "absolute_error"}, X, PRICES, {"target_scaling": "standardize"}),
    (MLPClassifier, {"solver": "sgd"}, 1e5 * X, CODES, {"input_scaling": "standardize"}),
    (MLPClassifier, RATE, X, CODES, {"learning_rate_init": 0.001}),
    (MLPRegressor, RATE, X, X[:, 0], {"learning_rate_init": 0.001}),
    (MLPRegressor, {"learning_rate_init": 1e-5}, X, X[:, 0] + 5, {"learning_rate_init": 0.0001}),
]


def fit(kind, settings, X, y):
    return kind(**{"hidden_layer_sizes": (20,), "random_state": 0, "tol": 0.0} | settings).fit(X, y)


@pytest.mark.parametrize(("kind", "settings", "X", "y", "cure"), USELESS)
def test_warning_about_a_useless_fit_says_what_to_type(kind, settings, X, y, cure):
    ((name, value),) = cure.items()
    with pytest.warns(
        RuntimeWarning, match=f"above.*constant.*likeliest cause.*type {name}={value!r}"
    ):
        fit(kind, settings, X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        if settings.get("learning_rate_init") != 1e-5:
            assert fit(kind, settings | cure, X, y).score(X, y) > 0.6
        if kind is MLPRegressor:  # A fit of few epochs is left alone.
            fit(kind, settings | {"max_iter": 9, "batch_size": 5}, X, y)


def test_useless_search_candidates_do_not_warn():
    model = MLPRegressor("squared_error", (5,), random_state=0, max_iter=50, batch_size=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for search in (GridSearchCV, sklearn.model_selection.GridSearchCV):
            search(model, {"alpha": [0.1, 1.0]}, cv=2, refit=False).fit(X, PRICES)
    with pytest.warns(RuntimeWarning, match="ends above"):
        model.fit(X, PRICES)


def test_constant_baseline_loss_matches_the_metric_of_the_mean():
    weights = np.linspace(0, 2, len(X))
    constant = np.broadcast_to(np.average(X, axis=0, weights=weights), X.shape)
    shares = np.tile(np.bincount(CODES, weights) / weights.sum(), (len(X), 1))
    is_first, sides = np.where(CODES == 0, "yes", "no"), (X > 0).astype(int)
    parts = np.broadcast_to(np.average(sides, axis=0, weights=weights), X.shape)
    classes = ClassTargets(np.arange(3), "softmax")
    two = ClassTargets(np.unique(is_first), "logistic")
    several, values = MultilabelTargets(np.arange(6)), RealTargets(6)

    def of(metric, y, predicted):
        return metric(y, predicted, sample_weight=weights)

    each_side = (of(log_loss, *pair) for pair in zip(sides.T, parts.T, strict=True))
    for loss, targets, y, expected in (
        (losses.SquaredError(), values, X, of(mean_squared_error, X, constant) / 2),
        (losses.AbsoluteError(), values, X, of(mean_absolute_error, X, constant)),
        (losses.SoftmaxCrossEntropy(), classes, CODES, of(log_loss, CODES, shares)),
        (losses.BinaryCrossEntropy(), two, is_first, of(log_loss, is_first, shares[:, 0])),
        (losses.BinaryCrossEntropy(), several, sides, sum(each_side)),
        (losses.Huber(), values, X, None),
    ):
        found = constant_loss(loss, targets, y, weights)
        assert found is expected is None or found == pytest.approx(expected), loss
