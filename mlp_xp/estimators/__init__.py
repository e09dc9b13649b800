"""The estimators, which are all that most users need: `MLPClassifier` and `MLPRegressor`.

They are composed of parts that know no estimator: `targets`, `config`, `state`, and the fit loop of
`mlp_xp.training`. `ensembles` average several of them. Networks, losses, optimizers and the saved
format are elsewhere.
"""

from mlp_xp.estimators.classifier import MLPClassifier
from mlp_xp.estimators.regressor import MLPRegressor

__all__ = ["MLP", "MLPClassifier", "MLPRegressor"]

MLP = MLPClassifier
