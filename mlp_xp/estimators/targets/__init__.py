"""Targets of a network, which are checked, learned from y, encoded for the loss, and decoded.

Each kind of targets defines which losses are valid, its default score, and how samples are
stratified and weighted. It does not depend on estimators or networks.
"""

from mlp_xp.estimators.targets._base import Targets
from mlp_xp.estimators.targets._classes import (
    ClassTargets,
    MultilabelTargets,
    MultioutputTargets,
)
from mlp_xp.estimators.targets._real import RealTargets

__all__ = ["ClassTargets", "MultilabelTargets", "MultioutputTargets", "RealTargets", "Targets"]
