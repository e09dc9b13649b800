"""The networks of an exported estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.utils.validation import check_is_fitted

from mlp_xp.estimators.averaging import BaseEnsemble, networks_of
from mlp_xp.estimators.base import BaseMLP
from mlp_xp.estimators.fitted.state import FittedState, fitted_state

_OTHERWISE = (
    "Pass the estimator in a pipeline or search, e.g. pipeline[-1] or search.best_estimator_. To "
    "export a whole pipeline to ONNX, use register_skl2onnx(). To convert scikit-learn's MLP, use "
    "from_sklearn."
)


def members_of(model: Any) -> list[Any]:
    """Return the estimators of an ensemble, or a list that contains the given estimator."""
    if isinstance(model, BaseEnsemble):
        check_is_fitted(model)
    elif not isinstance(model, BaseMLP):
        raise TypeError(
            f"`model` must be an estimator or ensemble of mlp_xp, got {model!r}. {_OTHERWISE}"
        )
    return networks_of(model)


def weights_of(model: Any) -> Any:
    """Return the weights of an ensemble's networks; None if they are equal."""
    return model._weights if isinstance(model, BaseEnsemble) else None


def states_of(members: Sequence[Any]) -> list[FittedState]:
    """Return the states of an ensemble's networks, which must read the same inputs."""
    states = [state_of(member) for member in members]
    if len({_inputs_of(state) for state in states}) > 1:
        raise ValueError(
            "The networks of the ensemble have different inputs: some of them encode other columns "
            "of a table. Export each of its estimators_ alone."
        )
    return states


def _inputs_of(state: FittedState) -> Any:
    """Return the names and kinds of a network's columns; None if it takes a matrix."""
    if state.columns is None:
        return None
    return tuple(
        (column.name, type(column), getattr(column, "is_text", None))
        for column in state.columns.columns
    )


def state_of(model: Any) -> FittedState:
    """Return a fitted estimator's calibrated state as NumPy arrays, after checking for NaN."""
    if isinstance(model, BaseEnsemble):
        raise TypeError(
            f"model is an {type(model).__name__}, which has several networks: export each of its "
            "estimators_, or export the ensemble with to_onnx."
        )
    (member,) = members_of(model)
    return fitted_state(member).to_host(None).checked().calibrated
