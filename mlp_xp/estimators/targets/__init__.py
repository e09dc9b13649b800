"""Targets of a network: checked, learned from y, encoded for the loss and decoded again.

A kind of targets knows which losses fit it, its default score, and how it is stratified and
weighted. It knows neither estimators nor networks.
"""

from mlp_xp.estimators.targets._base import Targets
from mlp_xp.estimators.targets._classes import (
    ClassTargets,
    MultilabelTargets,
    MultioutputTargets,
)
from mlp_xp.estimators.targets._real import RealTargets

__all__ = ["ClassTargets", "MultilabelTargets", "MultioutputTargets", "RealTargets", "Targets"]
