"""Multilayer perceptrons, written once over the Python Array API.

>>> from mlp_xp import MLP
>>> model = MLP(hidden_layer_sizes=(512, 512), backend="numpy")
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_xp.backends import get_backend
    from mlp_xp.estimators import MLP, MLPClassifier, MLPRegressor

__all__ = ["MLP", "MLPClassifier", "MLPRegressor", "get_backend"]

__version__ = "0.1.0"

# The estimators load scikit-learn, which takes a second: `mlp_xp.lab` and `mlp_xp.datasets` do
# without. So a name is loaded when it is first asked for (PEP 562).
_HOMES = dict.fromkeys(("MLP", "MLPClassifier", "MLPRegressor"), "mlp_xp.estimators")
_HOMES["get_backend"] = "mlp_xp.backends"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif importlib.util.find_spec(f"{__name__}.{name}") is not None:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
