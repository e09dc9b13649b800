"""The types of this package that skops must trust to load a fitted estimator."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator

from mlp_xp.backends.kernels import Scaling, Whitening
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.fitted.calibration import Calibration
from mlp_xp.estimators.fitted.device_cache import DeviceCopies
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.saving._ensembles import ENSEMBLES
from mlp_xp.training.data.input_scaling import Whiten
from mlp_xp.training.loop.loop_settings import LoopPosition
from mlp_xp.training.loop.records import ResumeState
from mlp_xp.training.step.loss_scaling import LossScale

_ESTIMATORS = (MLPClassifier, MLPRegressor, *ENSEMBLES.values())
_STATE = (FittedState, DeviceCopies, Calibration, Scaling, Whitening, Whiten, LoopPosition)
_PROGRESS = (ResumeState, LossScale)
# Packages with the settings and arrays of a network.
_PACKAGES = "nn", "optimizers", "augmentation", "estimators.tables", "estimators.targets"


def skops_types() -> list[str]:
    """Return the names of all types of this package that skops can find in a fitted estimator.

    skops loads a type only if you list it. These types contain settings and arrays; a file cannot
    make them run other code. Your own losses, activations and callbacks are not among them.

    Examples
    --------
    >>> from mlp_xp.saving import skops_types
    >>> "mlp_xp.estimators.classifier.MLPClassifier" in skops_types()
    True

    With skops installed: ``skops.io.load("model.skops", trusted=skops_types())``.
    """
    found = {*_ESTIMATORS, *_STATE, *_PROGRESS, *_records()}
    return sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in found)


def _records() -> Iterator[type]:
    """Yield the dataclasses and NamedTuples of the packages."""
    for name in _PACKAGES:
        package = importlib.import_module(f"mlp_xp.{name}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for kind in vars(importlib.import_module(info.name)).values():
                if not isinstance(kind, type) or kind.__module__ != info.name:
                    continue
                if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
                    yield kind
