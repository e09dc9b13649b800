"""Data, estimators, and comparisons with scikit-learn's results."""

import numpy as np
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlp_xp import MLPClassifier

X, y = load_iris(return_X_y=True)
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2, size=len(y))


def network(**params) -> MLPClassifier:
    """Return a small network whose fits warn of nothing."""
    settings = {"max_iter": 4, "n_iter_no_change": np.inf, "learning_rate": "cosine"}
    return MLPClassifier((5,), **settings | {"random_state": 0} | params)


def piped(**params):
    return make_pipeline(StandardScaler(), PCA(3), network(**params))


GRID = {"learning_rate_init": [0.01, 0.1], "alpha": [0, 1]}
PIPED_GRID = {"mlpclassifier__learning_rate_init": [0.01, 0.1], "pca__n_components": [2, 3]}


def assert_same_results(found, expected) -> None:
    """Check that two dictionaries of results are equal, but for the times."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if not name.endswith("_time"):
            np.testing.assert_array_equal(found[name], values, name)
        else:
            assert np.all(np.asarray(found[name]) >= 0), name


def assert_same_search(found, expected) -> None:
    """Check that two fitted searches agree in everything that a user can read."""
    assert vars(found).keys() == vars(expected).keys()
    assert_same_results(found.cv_results_, expected.cv_results_)
    for name in ("best_index_", "best_params_", "best_score_", "n_splits_", "n_features_in_"):
        assert getattr(found, name) == getattr(expected, name), name
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
