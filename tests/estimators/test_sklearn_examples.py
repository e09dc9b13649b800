"""What scikit-learn's examples do with an MLP, in our own short versions: the same figures.

Up to 200 samples are one batch, so that another order of the samples changes nothing but rounding.
"""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import (
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_circles,
    make_classification,
    make_moons,
)
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.inspection import DecisionBoundaryDisplay, partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

import mlp_xp as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def shapes():
    """Return two classes that lie in moons, in circles, and side by side."""
    lines = {"n_features": 2, "n_redundant": 0, "n_clusters_per_class": 1, "random_state": 0}
    yield make_moons(100, noise=0.3, random_state=0)
    yield make_circles(100, noise=0.2, factor=0.5, random_state=1)
    yield make_classification(100, **lines)


def the_penalty(library):
    for alpha in (0.1, 1.0, 10.0):
        network = library.MLPClassifier(
            (10, 10), solver="lbfgs", alpha=alpha, max_iter=60, early_stopping=True, random_state=1
        )
        for X, y in shapes():
            X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, random_state=42)
            model = make_pipeline(StandardScaler(), network).fit(X, y)
            yield f"alpha {alpha}: {model.score(X_test, y_test):.3f}"


def training_curves(library):
    strategies = [
        {"solver": "sgd", "learning_rate": "constant", "momentum": 0},
        {"solver": "sgd", "learning_rate": "constant", "nesterovs_momentum": False},
        {"solver": "sgd", "learning_rate": "constant", "nesterovs_momentum": True},
        {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0},
        {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": True},
        {"solver": "adam", "learning_rate_init": 0.01},
        {"solver": "adam", "learning_rate": "invscaling"},
    ]
    digits = load_digits(return_X_y=True)
    for X, y in (load_iris(return_X_y=True), (digits[0][:200], digits[1][:200]), *shapes()):
        X = MinMaxScaler().fit_transform(X)
        for settings in strategies:
            rate = {"learning_rate_init": 0.2} if settings["solver"] == "sgd" else {}
            model = library.MLPClassifier(random_state=0, max_iter=15, **rate | settings)
            model.fit(X, y)
            yield f"score {model.score(X, y):f} loss {model.loss_:f} epochs {model.n_iter_}"
            yield f"curve {np.round(model.loss_curve_, 6).tolist()}"


def classifiers_compared(library):
    pytest.importorskip("matplotlib").use("agg")
    for X, y in shapes():
        model = make_pipeline(StandardScaler(), library.MLPClassifier(alpha=1, random_state=0))
        X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=42)
        model.fit(X_train, y_train)
        shown = DecisionBoundaryDisplay.from_estimator(model, X, eps=0.5, grid_resolution=20)
        shown.figure_.clear()
        yield f"{model.score(X_test, y_test):.2f} {np.round(shown.response, 4).tolist()}"


def dependence(library):
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:200], y[:200] - y[:200].mean()
    network = library.MLPRegressor(
        hidden_layer_sizes=(30, 15), learning_rate_init=0.01, random_state=0, max_iter=60
    )
    model = make_pipeline(QuantileTransformer(n_quantiles=50), network).fit(X, y)
    yield f"R2 {model.score(X, y):.4f}"
    for features in ([2], [8], [2, 8]):
        found = partial_dependence(model, X, features, grid_resolution=5)
        yield f"{features} {np.round(found['average'], 3).tolist()}"
    importance = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    yield f"importance {np.round(importance.importances_mean, 4).tolist()}"


def several_outputs(library):
    rng = np.random.RandomState(1)
    X = np.sort(200 * rng.rand(150, 1) - 100, axis=0) / 100
    y = np.pi * np.column_stack([np.sin(np.pi * X[:, 0]), np.cos(np.pi * X[:, 0])])
    settings = {"hidden_layer_sizes": (20,), "learning_rate_init": 0.01, "random_state": 0}
    model = library.MLPRegressor(**settings, max_iter=400).fit(X, y)
    yield f"R2 {model.score(X, y):.4f} loss {model.loss_:.5f} epochs {model.n_iter_}"
    chain = RegressorChain(library.MLPRegressor(**settings, max_iter=50)).fit(X, y)
    yield f"chain {chain.score(X, y):.4f}"
    X, y = load_iris(return_X_y=True)
    answers = np.column_stack([y, y == 1])
    model = MultiOutputClassifier(library.MLPClassifier(**settings, max_iter=50)).fit(X, answers)
    yield f"both right {model.score(X, answers):.4f}"
    pictures = load_digits().data[:150] / 16
    autoencoder = library.MLPRegressor(**settings, max_iter=120, tol=1e-3).fit(pictures, pictures)
    yield f"autoencoder {autoencoder.loss_:.6f} after {autoencoder.n_iter_}"


def ensembles(library):
    settings = {"hidden_layer_sizes": (10,), "max_iter": 80, "random_state": 0}
    X, y = load_wine(return_X_y=True)
    network = library.MLPClassifier(**settings)
    both = [("mlp", network), ("linear", LogisticRegression())]
    for ensemble in (
        StackingClassifier(both, cv=3),
        VotingClassifier(both, voting="soft"),
        BaggingClassifier(network, n_estimators=3, random_state=0),
        AdaBoostClassifier(network, n_estimators=2, random_state=0),
    ):
        model = make_pipeline(StandardScaler(), ensemble)
        yield f"accuracy {np.round(cross_val_score(model, X, y, cv=2), 4).tolist()}"
        yield f"probabilities {np.round(model.fit(X, y).predict_proba(X[::30]), 4).tolist()}"
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:200] * 20, y[:200] / 100
    stack = StackingRegressor([("mlp", library.MLPRegressor(**settings)), ("ridge", RidgeCV())])
    yield f"R2 {stack.fit(X, y).score(X, y):.4f}"


def calibrated(library):
    X, y = make_classification(200, n_features=8, random_state=0)
    network = library.MLPClassifier((8,), max_iter=60, random_state=0, learning_rate_init=0.01)
    for method in ("sigmoid", "isotonic"):
        p = CalibratedClassifierCV(network, method=method, cv=3).fit(X, y).predict_proba(X)
        yield f"{method} {brier_score_loss(y, p[:, 1]):.4f} {log_loss(y, p):.4f}"
    X, y = load_iris(return_X_y=True)
    p = OneVsRestClassifier(network).fit(X, y).predict_proba(X)
    yield f"one against the rest {roc_auc_score(y, p, multi_class='ovr'):.4f}"
    yield f"{np.round(p[::25], 4).tolist()}"


EXAMPLES = [the_penalty, training_curves, classifiers_compared, dependence, several_outputs]


@pytest.mark.matrix
@pytest.mark.parametrize("example", [*EXAMPLES, ensembles, calibrated])
def test_the_figures_are_the_same(example):
    expected = list(example(theirs))
    assert list(example(ours)) == expected
