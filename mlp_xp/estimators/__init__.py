"""The estimators: what most users need of this library."""

from mlp_xp.estimators.classifier import MLPClassifier
from mlp_xp.estimators.regressor import MLPRegressor

__all__ = ["MLP", "MLPClassifier", "MLPRegressor"]

MLP = MLPClassifier
