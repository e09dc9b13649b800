"""Multilayer perceptrons, written once over the Python Array API.

>>> from mlp_xp import MLP
>>> model = MLP(hidden_layer_sizes=(512, 512), backend="numpy")
"""

from mlp_xp.backends import get_backend
from mlp_xp.estimators import MLP, MLPClassifier, MLPRegressor

__all__ = ["MLP", "MLPClassifier", "MLPRegressor", "get_backend"]

__version__ = "0.1.0"
