"""The content of ``model.json`` for an ensemble: its parameters and its networks' specs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mlp_xp.estimators.ensembles import MLPEnsembleClassifier, MLPEnsembleRegressor
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.estimators.tuned import MLPTunedClassifier, MLPTunedRegressor
from mlp_xp.saving._files import SavingError, expect
from mlp_xp.saving._json import decode, encode, is_number
from mlp_xp.saving._spec import ESTIMATORS, Rebuilt

TUNED = {kind.__name__: kind for kind in (MLPTunedClassifier, MLPTunedRegressor)}
ENSEMBLES: dict[str, Any] = {
    kind.__name__: kind for kind in (MLPEnsembleClassifier, MLPEnsembleRegressor)
} | TUNED

_LEFT_OUT = "callbacks"
_ENCODED = "estimator", "settings"  # Ensemble parameters that contain network parameters.


def name_members(states: list[FittedState]) -> dict[str, FittedState]:
    """Return the states of the networks by the prefix of their tensor names."""
    return {f"{number}.": state for number, state in enumerate(states)}


def describe_ensemble(ensemble: Any, networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the spec of a fitted ensemble, without the digest."""
    kind = next((name for name, kind in ENSEMBLES.items() if isinstance(ensemble, kind)), None)
    if kind is None:
        raise SavingError(f"{type(ensemble).__name__} is not one of {', '.join(ENSEMBLES)}")
    params = ensemble.get_params(deep=False)
    if not isinstance(params["random_state"], int | None):
        params["random_state"] = None  # The spec of each network contains a seed.
    template, settings = (params.pop(name, None) for name in _ENCODED)
    if template is not None:
        params["estimator"] = _encoded(template.get_params(deep=False))
    if settings is not None:
        params["settings"] = [_encoded(given) for given in settings]
    spec = {name: networks[0][name] for name in ("format", "format_version")}
    spec |= {"estimator": kind, "params": params, "networks": networks}
    if kind in TUNED:
        spec["tuned"] = {
            "weights": ensemble.weights_.tolist(),
            "loss": ensemble.loss_,
            "results": {
                name: [_encoded(row) if name == "params" else encode(name, row) for row in rows]
                for name, rows in ensemble.search_results_.items()
            },
        }
    spec = json.loads(json.dumps(spec, allow_nan=False))
    _rebuilt_params(spec)  # Check that the spec can be loaded.
    return spec


def _encoded(params: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in params.items() if name != _LEFT_OUT}
    for name, kind in (("random_state", int), ("device", str)):
        if name in given and not isinstance(given[name], kind):
            given[name] = None
    return {name: encode(name, value, name) for name, value in given.items()}


def rebuild_ensemble(spec: dict[str, Any], networks: list[Rebuilt]) -> Any:
    """Return the ensemble that a spec describes, without its networks."""
    ensemble = _rebuilt_params(spec)
    expect(len(networks) > 0, "networks is empty")
    first = networks[0]
    for network in networks:
        is_similar = network.state.n_columns == first.state.n_columns
        is_similar &= type(network.model) is ensemble._member_type
        is_similar &= _labels(network) == _labels(first)
        expect(is_similar, "networks differ in their type, features or classes")
    if spec["estimator"] in TUNED:
        _set_tuned(ensemble, spec["tuned"], len(networks))
    return ensemble


def _labels(network: Rebuilt) -> Any:
    classes = network.state.targets.classes
    if classes is None:
        return None
    labels = [c.tolist() for c in classes] if isinstance(classes, list) else classes.tolist()
    return network.state.targets.kind, labels


def _rebuilt_params(spec: dict[str, Any]) -> Any:
    kind = ENSEMBLES[spec["estimator"]]
    params = dict(spec["params"])
    network = ESTIMATORS[kind._member_type.__name__]
    if "estimator" in params:
        params["estimator"] = network(**_decoded(params["estimator"], network))
    if "settings" in params:
        params["settings"] = [_decoded(given, network) for given in params["settings"]]
    ensemble: Any = kind().set_params(**params)
    ensemble._validate_params()
    return ensemble


def _decoded(params: dict[str, Any], network: Any) -> dict[str, Any]:
    """Return a network's parameters, after checking them."""
    expect(_LEFT_OUT not in params, f"{_LEFT_OUT} cannot be saved")
    decoded = {name: decode(value, name) for name, value in params.items()}
    network().set_params(**decoded)._validate_params()
    return decoded


def with_networks(ensemble: Any, networks: list[Any]) -> Any:
    """Return an ensemble with its fitted networks."""
    first = networks[0]
    ensemble.estimators_ = networks
    names = ["classes_", "n_features_in_", "feature_names_in_"]
    names += ["columns_"] * isinstance(ensemble, tuple(TUNED.values()))
    for name in names:
        if hasattr(first, name):
            setattr(ensemble, name, getattr(first, name))
    return ensemble


def _set_tuned(ensemble: Any, tuned: dict[str, Any], n_networks: int) -> None:
    """Set the fitted attributes that only a tuned ensemble has, after checking them."""
    weights, results = tuned["weights"], tuned["results"]
    is_valid = all(is_number(weight) and 0.0 <= weight <= 1.0 for weight in weights)
    is_valid = is_valid and len(weights) == n_networks
    expect(is_valid and abs(sum(weights) - 1.0) < 1e-6, "weights do not match the networks")
    expect(is_number(tuned["loss"]), f"loss is {tuned['loss']!r}, not a number")
    n_rows = {len(rows) for rows in results.values()}
    expect(len(n_rows) == 1, "the columns of results have different lengths")
    ensemble.weights_, ensemble.loss_ = np.asarray(weights, np.float64), tuned["loss"]
    ensemble.search_results_ = {
        name: [
            {key: decode(value, key) for key, value in row.items()}
            if name == "params"
            else decode(row)
            for row in rows
        ]
        for name, rows in results.items()
    }
