"""The estimators `MLPClassifier` and `MLPRegressor`, which are all that most users need.

They are composed of parts that do not depend on an estimator: `targets`, `config`, `state`, and the
fit loop in `mlp_xp.training`. `ensembles` average several estimators. Networks, losses, optimizers
and the saved format are in other folders.
"""

from mlp_xp.estimators.classifier import MLPClassifier
from mlp_xp.estimators.regressor import MLPRegressor

__all__ = ["MLP", "MLPClassifier", "MLPRegressor"]

MLP = MLPClassifier
