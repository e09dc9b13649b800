"""The estimators `MLPClassifier` and `MLPRegressor`, the main classes of the package.

The module `ensembles` averages the predictions of several networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_xp._utils.lazy import lazy
from mlp_xp.estimators.classifier import MLPClassifier

if TYPE_CHECKING:
    from mlp_xp.estimators.regressor import MLPRegressor

__all__ = ["MLP", "MLPClassifier", "MLPRegressor"]

MLP = MLPClassifier
__getattr__ = lazy(__name__, {"MLPRegressor": "mlp_xp.estimators.regressor"})


def __dir__() -> list[str]:
    return __all__
