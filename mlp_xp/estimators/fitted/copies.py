"""Copies of fitted estimators for callbacks."""

from __future__ import annotations

from typing import Any

from mlp_xp.estimators.fitted.state import fitted_state, publish


def host_copy(estimator: Any) -> Any:
    """Return a copy in NumPy arrays, which a fit that continues leaves unchanged.

    It lacks what a pickle has for the next fit, the optimizer state, and callbacks of scikit-learn.
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
