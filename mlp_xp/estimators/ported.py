"""Private methods of scikit-learn's MLP that people override, and their replacements here."""

from __future__ import annotations

from typing import Any

__all__ = ["check_overrides"]

_WEIGHTS = "set coefs_ and intercepts_ before a fit with warm_start=True"
_LOOP = "use callbacks=[...], a rule of mlp_xp.optimizers as solver, or partial_fit"
_LOSS = "give loss=..., a callable that returns losses and pullback (mlp_xp.nn.losses.Custom)"
_LAYERS = "give an activation of your own, or objects of mlp_xp.nn.hidden in hidden_layer_sizes"
_SCORE = "give scoring=..., a name or a callable"
_INSTEAD = {
    "_init_coef": _WEIGHTS,
    "_initialize": _WEIGHTS,
    "_fit": "override fit and partial_fit",
    "_fit_stochastic": _LOOP,
    "_fit_lbfgs": _LOOP,
    "_validate_input": "change X and y in fit and partial_fit, or in a step of a Pipeline before",
    "_backprop": _LOSS,
    "_compute_loss_grad": _LOSS,
    "_loss_grad_lbfgs": _LOSS,
    "_forward_pass": _LAYERS,
    "_forward_pass_fast": _LAYERS,
    "_predict": "override predict",
    "_score": _SCORE,
    "_score_with_function": _SCORE,
    "_update_no_improvement_count": "use n_iter_no_change, scoring=..., or callbacks=[...]",
}


def check_overrides(estimator: Any) -> None:
    """Raise a TypeError if an estimator has a method that only scikit-learn's MLP would call.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.estimators.ported import check_overrides
    >>> check_overrides(MLPClassifier())
    """
    for name, instead in _INSTEAD.items():
        if hasattr(estimator, name):
            raise TypeError(
                f"{type(estimator).__name__} has {name}, a private method of scikit-learn's MLP "
                f"that mlp_xp does not call: {instead}. Rename it if it is your own."
            )
