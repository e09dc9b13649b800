"""The estimators `MLPClassifier` and `MLPRegressor`, the main classes of the package.

The module `ensembles` averages the predictions of several networks.
"""

from mlp_xp.estimators.classifier import MLPClassifier
from mlp_xp.estimators.regressor import MLPRegressor

__all__ = ["MLP", "MLPClassifier", "MLPRegressor"]

MLP = MLPClassifier
