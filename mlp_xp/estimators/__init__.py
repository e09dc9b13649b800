"""The estimators `MLPClassifier` and `MLPRegressor`, the main classes of the package.

They are composed of parts that do not depend on the estimators: `targets`, `config`, `state`, and
the fit loop in `mlp_xp.training`. The module `ensembles` averages the predictions of several
networks. Networks, losses, optimizers and the model format are in other packages.
"""

from mlp_xp.estimators.classifier import MLPClassifier
from mlp_xp.estimators.regressor import MLPRegressor

__all__ = ["MLP", "MLPClassifier", "MLPRegressor"]

MLP = MLPClassifier
