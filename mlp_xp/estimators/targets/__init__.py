"""The kinds of targets: how y is checked, encoded for the loss, and decoded from outputs.

Each kind also defines which losses are valid, the default score, and how samples are stratified and
weighted. Targets do not depend on estimators or networks.
"""

from mlp_xp.estimators.targets._base import Targets
from mlp_xp.estimators.targets._classes import (
    ClassTargets,
    MultilabelTargets,
    MultioutputTargets,
)
from mlp_xp.estimators.targets._real import RealTargets

__all__ = ["ClassTargets", "MultilabelTargets", "MultioutputTargets", "RealTargets", "Targets"]
