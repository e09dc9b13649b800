"""Copies of fitted estimators for callbacks."""

from __future__ import annotations

from typing import Any

from mlp_xp.estimators.fitted.state import fitted_state, publish

__all__ = ["host_copy"]


def host_copy(estimator: Any) -> Any:
    """Return a copy in NumPy arrays, which a fit that continues leaves unchanged.

    It lacks what a pickle has for the next fit, the optimizer state, and callbacks of scikit-learn.

    Examples
    --------
    >>> from mlp_xp import MLPRegressor
    >>> from mlp_xp.estimators.fitted.copies import host_copy
    >>> model = MLPRegressor(hidden_layer_sizes=4, max_iter=1, learning_rate="cosine")
    >>> copied = host_copy(model.fit([[0.0], [1.0]], [0, 1]))
    >>> copied.n_iter_, copied.coefs_[0] is model.coefs_[0]
    (1, False)
    """
    copied: Any = object.__new__(type(estimator))
    attributes = vars(estimator).items()
    # Lists grow in place, so the copy has its own.
    vars(copied).update({k: list(v) if isinstance(v, list) else v for k, v in attributes})
    # The fit in progress, and where scikit-learn has it: it refers to all that its callbacks do.
    for name in ("_training", "_skl_callbacks", "_callback_fit_ctx", "_skl_callbacks_to_teardown"):
        vars(copied).pop(name, None)
    publish(copied, fitted_state(estimator).to_host(None))
    return copied
