"""Data, an estimator, and a comparison with scikit-learn's results."""

import numpy as np
from sklearn.datasets import load_iris

from mlp_xp import MLPClassifier

X, y = load_iris(return_X_y=True)


def network(**params) -> MLPClassifier:
    """Return a small network whose fits warn of nothing."""
    settings = {"max_iter": 4, "n_iter_no_change": np.inf, "learning_rate": "cosine"}
    return MLPClassifier((5,), **settings | {"random_state": 0} | params)


GRID = {"learning_rate_init": [0.01, 0.1], "alpha": [0, 1]}


def assert_same_results(found, expected) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if not name.endswith("_time"):
            np.testing.assert_array_equal(found[name], values, name)
        else:
            assert np.all(np.asarray(found[name]) >= 0), name
