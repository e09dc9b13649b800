"""Multilayer perceptrons with scikit-learn's interface, on NumPy, CuPy, PyTorch or JAX.

The package exports the estimators. Subpackages contain their building blocks (`nn`, `optimizers`,
`backends`, `training`, ...) and related tools (`datasets`, `recipes`, `saving`, `lab`, ...).

>>> from mlp_xp import MLP
>>> from mlp_xp.datasets import load_digits
>>> digits = load_digits()
>>> model = MLP((64,), learning_rate="onecycle", learning_rate_init=0.01, max_iter=10,
...             input_scaling="standardize", random_state=0)
>>> model = model.fit(digits.x_train, digits.y_train)
>>> model.score(digits.x_test, digits.y_test) > 0.95
True

Add ``backend="cupy"``, ``"torch"`` or ``"jax"`` to train on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_xp._utils.lazy import lazy

if TYPE_CHECKING:
    from mlp_xp.backends import get_backend
    from mlp_xp.estimators import MLP, MLPClassifier, MLPRegressor
    from mlp_xp.estimators.ensembles import MLPEnsembleClassifier, MLPEnsembleRegressor
    from mlp_xp.estimators.tuned import MLPTunedClassifier, MLPTunedRegressor

__all__ = [
    "MLP",
    "MLPClassifier",
    "MLPEnsembleClassifier",
    "MLPEnsembleRegressor",
    "MLPRegressor",
    "MLPTunedClassifier",
    "MLPTunedRegressor",
    "get_backend",
]

__version__ = "0.1.0"

# Import each name on first use (PEP 562): importing scikit-learn takes a second, and `mlp_xp.lab`
# and `mlp_xp.datasets` do not need it.
_MODULES = dict.fromkeys(("MLP", "MLPClassifier", "MLPRegressor"), "mlp_xp.estimators")
_ENSEMBLES = "MLPEnsembleClassifier", "MLPEnsembleRegressor"
_MODULES |= dict.fromkeys(_ENSEMBLES, "mlp_xp.estimators.ensembles")
_TUNED = "MLPTunedClassifier", "MLPTunedRegressor"
_MODULES |= dict.fromkeys(_TUNED, "mlp_xp.estimators.tuned")
_MODULES["get_backend"] = "mlp_xp.backends"

__getattr__ = lazy(__name__, _MODULES)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
