"""What scikit-learn's examples do with an MLP, in our own short versions: the same figures.

Up to 200 samples are one batch, so that another order of the samples changes nothing but rounding.
"""

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine, make_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler

import mlp_xp as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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


@pytest.mark.matrix
@pytest.mark.parametrize("example", [dependence, several_outputs, ensembles, calibrated])
def test_the_figures_are_the_same(example):
    expected = list(example(theirs))
    assert list(example(ours)) == expected
