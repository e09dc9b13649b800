"""Weights that are given to an estimator that was never fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlp_xp.estimators.fitted.state import fitted_state

__all__ = ["set_weights"]


def set_weights(
    estimator: Any, coefs: Sequence[Any], intercepts: Sequence[Any], classes: Any = None
) -> None:
    """Set the weights, and with them the widths, of an estimator that was never fitted."""
    if len(coefs) != len(intercepts) or not coefs:
        raise ValueError(
            f"There are {len(coefs)} coefs and {len(intercepts)} intercepts: give one of each for "
            "every layer, the output layer last."
        )
    estimator.set_params(hidden_layer_sizes=tuple(int(b.shape[0]) for b in intercepts[:-1]))
    known = {}
    if classes is not None:
        is_several = np.ndim(classes[0]) > 0
        known["classes_"] = [*map(np.asarray, classes)] if is_several else np.asarray(classes)
    vars(estimator).update(known, coefs_=list(coefs), intercepts_=list(intercepts))
    state, n_outputs = fitted_state(estimator), int(intercepts[-1].shape[0])
    if classes is not None and state.targets.n_outputs != n_outputs:
        raise ValueError(
            f"There are {len(estimator.classes_)} classes, which need {state.targets.n_outputs} "
            f"outputs, and the last layer has {n_outputs}."
        )
