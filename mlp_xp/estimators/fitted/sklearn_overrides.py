"""Private attributes of scikit-learn's MLP that users read or override, and their replacements."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer

from mlp_xp.estimators.fitted.prediction import PredictionMixin
from mlp_xp.estimators.fitted.state import fitted_state

_WEIGHTS = "set coefs_ and intercepts_ before a fit with warm_start=True"
_LOOP = "use callbacks=[...], an optimizer of mlp_xp.optimizers as solver, or partial_fit"
_LOSS = "pass loss=..., a callable that returns losses and pullback (mlp_xp.nn.losses.Custom)"
_LAYERS = "pass a function as activation, or objects of mlp_xp.nn.hidden in hidden_layer_sizes"
_SCORE = "pass scoring=..., a name or a callable"
_INSTEAD = {
    "_init_coef": _WEIGHTS,
    "_initialize": _WEIGHTS,
    "_fit": "override fit and partial_fit",
    "_fit_stochastic": _LOOP,
    "_fit_lbfgs": _LOOP,
    "_validate_input": "change X and y in fit and partial_fit, or in an earlier step of a Pipeline",
    "_backprop": _LOSS,
    "_compute_loss_grad": _LOSS,
    "_loss_grad_lbfgs": _LOSS,
    "_forward_pass": _LAYERS,
    "_forward_pass_fast": _LAYERS,
    "_unpack": "set coefs_ and intercepts_",
    "_check_solver": "pass an optimizer of mlp_xp.optimizers as solver",
    "_predict": "override predict",
    "_score": _SCORE,
    "_score_with_function": _SCORE,
    "_update_no_improvement_count": "use n_iter_no_change, scoring=..., or callbacks=[...]",
}
_SIZES = "read the shapes of coefs_ and intercepts_"
_READ_INSTEAD = {
    "_coef_indptr": _SIZES,
    "_intercept_indptr": _SIZES,
    "_optimizer": "read history_[-1].learning_rate; change set_params(learning_rate_init=...)",
    "_no_improvement_count": "compute len(loss_curve_) - 1 - numpy.argmin(loss_curve_)",
    "_random_state": "pass random_state=numpy.random.RandomState(...), and use that object",
    "_best_coefs": "read coefs_, which has the best weights after early stopping",
    "_best_intercepts": "read intercepts_, which has the best biases after early stopping",
}


class SklearnNamesMixin(PredictionMixin):
    """A mixin that supports private names of scikit-learn's MLP, or raises an error with advice."""

    if not TYPE_CHECKING:  # Hide this from type checkers, which would accept any name.

        def __getattr__(self, name: str) -> Any:
            if name in _METHODS:
                return partial(_METHODS[name], self)
            instead = _READ_INSTEAD.get(name) or _INSTEAD.get(name)
            if instead is not None:
                raise AttributeError(
                    f"{type(self).__name__!r} object has no attribute {name!r}, which is private "
                    f"in scikit-learn's MLP: {instead}."
                )
            if name == "_label_binarizer" and "classes_" in vars(self):
                return _label_binarizer(self)
            return object.__getattribute__(self, name)  # Raise the usual error.


def _label_binarizer(model: Any) -> LabelBinarizer:
    targets = fitted_state(model).targets
    is_several = targets.kind == "multilabel"
    classes = targets.classes
    return LabelBinarizer().fit(np.eye(len(classes), dtype=int) if is_several else classes)


def _forward_pass(model: Any, activations: list[Any]) -> list[Any]:
    """Set and return the activations of all layers, given a list that begins with the inputs."""
    X, n_hidden = activations[0], model.n_layers_ - 2
    activations[1:] = [model.hidden_activations(X, layer) for layer in range(n_hidden)]
    activations.append(_forward_pass_fast(model, X))
    return activations


def _forward_pass_fast(model: Any, X: Any, check_input: bool = True) -> Any:
    return model._outputs(X, "_forward_pass_fast")


_METHODS = {"_forward_pass": _forward_pass, "_forward_pass_fast": _forward_pass_fast}


def check_overrides(estimator: Any) -> None:
    """Raise a TypeError if an estimator has a method that only scikit-learn's MLP would call."""
    for name, instead in _INSTEAD.items():
        if hasattr(type(estimator), name) or name in vars(estimator):
            raise TypeError(
                f"{type(estimator).__name__} has {name}, a private method of scikit-learn's MLP "
                f"that mlp_xp does not call: {instead}. Rename it if it is your own."
            )
