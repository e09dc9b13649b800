"""What ``model.json`` holds: everything about a fitted estimator but its arrays."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp.augmentation import AUGMENTATIONS, VIEWS
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.nn.hidden import Branch
from mlp_xp.saving._files import SPEC, WEIGHTS, SavingError, brief, expect
from mlp_xp.saving._json import decode, decode_classes, encode, encode_classes
from mlp_xp.training.input_scaling import SCALINGS, Whiten
from mlp_xp.training.trainer import Progress, Record

ESTIMATORS = {kind.__name__: kind for kind in (MLPClassifier, MLPRegressor)}

_FORMAT, _VERSION = "mlp_xp", 4
_WITHOUT_DIGEST = 3  # A format that differs only in `weights_sha256`, of the other file alone.
_MOST_VIEWS = 1000
_NUMBERS = ("loss", "best_loss", "best_validation_score")
_CURVES = ("loss_curve", "validation_scores", "validation_loss_curve")
_OPTIONAL = ("accuracy", "validation_loss", "validation_score")


# --- to JSON -------------------------------------------------------------------------------------


def describe(estimator: Any, kind: str) -> dict[str, Any]:
    """Return the spec of a fitted estimator, without the digest."""
    names = getattr(estimator, "feature_names_in_", None)
    spec = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "estimator": kind,
        "widths": encode("widths", list(estimator._network.widths), "hidden_layer_sizes"),
        "dtype": estimator._dtype,
        "features": int(estimator.n_features_in_),
        "scaled": encode("scaled", estimator._scaled_by, "input_scaling"),
        "seed": estimator._seed,
        "out_activation": estimator.out_activation_,
        "feature_names": None if names is None else names.tolist(),
        "params": _encode_params(estimator, kind),
        "training": {
            "n_iter": int(estimator.n_iter_),
            "t": int(estimator.t_),
            # An error in the first epoch leaves a network without a loss.
            **{
                name: encode(f"{name}_", getattr(estimator, f"{name}_", None))
                for name in (*_NUMBERS, *_CURVES)
            },
            "history": [
                {name: encode("history_", value) for name, value in record._asdict().items()}
                for record in estimator.history_
            ],
        },
    }
    if isinstance(estimator, MLPClassifier):
        spec["target_type"] = estimator._target_type
        spec["sparse_targets"] = estimator._is_sparse_y
        spec["classes"] = encode_classes(estimator.classes_)
    return spec


def _encode_params(estimator: Any, kind: str) -> dict[str, Any]:
    # A subclass, which is saved as what it inherits from, may take others.
    names = ESTIMATORS[kind]._get_param_names()
    params = {name: getattr(estimator, name) for name in names if name != "callbacks"}
    if not isinstance(params["random_state"], int | None):
        params["random_state"] = estimator._seed
    if not isinstance(params["device"], str):
        params["device"] = None
    return {name: encode(name, value, name) for name, value in params.items()}


def check_rebuilt(estimator: Any, spec: dict[str, Any]) -> None:
    """Refuse parameters that would not make the network again that was fitted."""
    try:
        rebuilt = rebuild(spec)
        dtype = rebuilt._dtype if rebuilt.precision == "auto" else rebuilt._parameter_dtype()
        for old, new in (
            (estimator._network, rebuilt._make_network(rebuilt._hidden_sizes())),
            (estimator._loss, rebuilt._loss),
            (estimator._scaled_by, rebuilt.input_scaling),
            (estimator._dtype, dtype),
        ):
            expect(old == new, f"the fit had {old!r}, and they say {new!r}")
    except Exception as error:  # Parameters that were set since the fit are checked only here.
        raise SavingError(
            f"the parameters have been changed since the fit: {brief(error)}; set them back, or "
            "fit again"
        ) from error


# --- and back ------------------------------------------------------------------------------------


def check_version(spec: dict[str, Any]) -> None:
    found, version = spec.get("format"), spec.get("format_version")
    expect(found == _FORMAT, f"format is {found!r}, not {_FORMAT!r}")
    known = f"format_version is {version!r}, and this mlp-xp reads {_WITHOUT_DIGEST} and {_VERSION}"
    if type(version) is not int:
        raise SavingError(known)
    expect(version <= _VERSION, f"{known}: it was saved by a newer mlp-xp, update this one")
    expect(
        version >= _WITHOUT_DIGEST,
        f"{known}: it was saved by a version from before the first release, train the model again",
    )


def digest(spec: dict[str, Any], weights: bytes) -> str:
    """Return the SHA-256 of a model: of its weights' file, then of its spec as compact JSON."""
    described = {key: value for key, value in spec.items() if key != "sha256"}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"".join((weights, text.encode()))).hexdigest()


def check_digest(spec: dict[str, Any], weights: bytes) -> None:
    """Raise SavingError if a spec or the weights are not as they were saved."""
    if spec["format_version"] == _WITHOUT_DIGEST:
        saved, found = spec["weights_sha256"], hashlib.sha256(weights).hexdigest()
    else:
        saved, found = spec["sha256"], digest(spec, weights)
    expect(
        saved == found,
        f"the SHA-256 of {WEIGHTS} and {SPEC} is {found}, and was {saved} when they were saved: "
        "one of them was damaged, edited, or is of another save. Take both from a copy; to change "
        "a setting, use load_model, set_params and save_model",
    )


def rebuild(spec: dict[str, Any], most_layers: float = math.inf) -> Any:
    """Make the estimator that a spec describes, without its arrays.

    A spec of more layers than ``most_layers`` is refused before the network is made.
    """

    def take(name: str, is_right: Callable[[Any], bool], what: str) -> Any:
        value = spec[name]
        expect(is_right(value), f"{name} is {value!r}, not {what}")
        return value

    kind = take("estimator", lambda kind: kind in ESTIMATORS, f"one of {', '.join(ESTIMATORS)}")
    model: Any = ESTIMATORS[kind]()
    params = spec["params"]
    unknown = sorted(set(params) - (set(model.get_params()) - {"callbacks"}))
    expect(not unknown, f"params has {unknown}, which {kind} does not take")
    model.set_params(**{name: decode(value, name) for name, value in params.items()})
    model._validate_params()
    widths = take(
        "widths",
        lambda widths: len(widths) >= 2 and all(type(n) is dict or _is_width(n) for n in widths),
        "a list of at least two integers above 0, or of layers between them",
    )
    widths = decode(widths, "hidden_layer_sizes")
    expect(
        _is_width(widths[0]) and _is_width(widths[-1]), "widths does not begin and end in numbers"
    )
    n_layers = sum(len(n.layers) if isinstance(n, Branch) else 1 for n in widths[1:])
    expect(
        n_layers <= most_layers,
        f"widths asks for {n_layers} layers, and {WEIGHTS} holds {most_layers} tensors",
    )
    model.n_features_in_ = take("features", _is_width, "an integer above 0")
    model.n_outputs_, model.n_layers_ = widths[-1], len(widths)
    model._dtype = take(
        "dtype", lambda dtype: dtype in ("float32", "float64"), "'float32' or 'float64'"
    )
    model._seed = take(
        "seed", lambda seed: type(seed) is int and 0 <= seed < 2**32, "an integer of 32 bits"
    )
    model._scaled_by = how = decode(spec["scaled"], "input_scaling")
    is_known = how is None or isinstance(how, Whiten) or (type(how) is str and how in SCALINGS)
    expect(is_known, f"scaled is {how!r}, not null, one of {', '.join(SCALINGS)} or a Whiten")
    names = spec["feature_names"]
    if names is not None:
        expect(
            len(names) == model.n_features_in_ and all(isinstance(name, str) for name in names),
            f"feature_names is not a list of {model.n_features_in_} strings",
        )
        model.feature_names_in_ = np.asarray(names, dtype=object)
    model.out_activation_ = output = spec["out_activation"]
    if kind == "MLPClassifier":
        _set_targets(model, spec)
    model._loss = model._resolve_loss()
    expect(
        model.out_activation_ == output,
        f"out_activation is {output!r}, and params make it {model.out_activation_!r}",
    )
    model._network = model._make_network(tuple(widths[1:-1]))
    inputs = model._network.widths[0]
    expect(inputs == widths[0], f"widths begins with {widths[0]}, and params make it {inputs}")
    _check_late_settings(model)
    _set_training(model, spec["training"])
    return model


def _check_late_settings(model: Any) -> None:
    """Check the settings that estimators check late: at a fit, at a prediction."""
    device = "cpu" if model.device is None else model.device
    expect(
        bool(re.fullmatch(r"\w{1,30}(:\d{1,4})?", device, re.ASCII)),
        f"device is {device!r}, not null or a name such as 'cpu' or 'cuda:0'",
    )
    model._pictures("augmentation", model.augmentation, AUGMENTATIONS)
    views = model._pictures("tta", model.tta, VIEWS)
    n_views = math.prod(len(each.views) for each in views)
    expect(n_views <= _MOST_VIEWS, f"tta makes {n_views} views, expected at most {_MOST_VIEWS}")


def _set_targets(model: Any, spec: dict[str, Any]) -> None:
    """Set what a classifier knows of its classes."""
    model.classes_ = decode_classes(spec["classes"])
    model._target_type = kind = spec["target_type"]
    if spec.get("sparse_targets") is True:
        model._is_sparse_y = True
    output, n_classes = model.out_activation_, len(model.classes_)
    expect(
        kind in ("binary", "multiclass", "multilabel")
        and (kind == "multilabel" or (kind == "binary") == (n_classes == 2)),
        f"target_type is {kind!r}, which does not fit {n_classes} classes",
    )
    expect(
        output == "logistic" or (output == "softmax" and kind != "multilabel"),
        f"out_activation is {output!r}, which does not fit target_type {kind!r}",
    )
    expect(
        model.n_outputs_ == (1 if (kind, output) == ("binary", "logistic") else n_classes),
        f"{n_classes} classes do not fit {model.n_outputs_} outputs",
    )


def _set_training(model: Any, training: dict[str, Any]) -> None:
    """Set what is known of the fit."""
    counts = training["n_iter"], training["t"]
    expect(all(map(_is_count, counts)), "n_iter and t are not counts")
    model.n_iter_, model.t_ = counts
    for name in _CURVES:
        curve = decode(training[name])
        expect(
            all(map(_is_number, curve))
            if isinstance(curve, list)
            else curve is None and name != "loss_curve",
            f"{name} is not a list of numbers",
        )
        if name == "loss_curve":  # What a fit leaves, and scikit-learn's.
            curve = [np.float64(value) for value in curve]
        setattr(model, f"{name}_", curve)
    for name in _NUMBERS:
        value = decode(training[name])
        expect(value is None or _is_number(value), f"{name} is {value!r}, not a number")
        if value is not None and name != "best_validation_score":
            value = np.float64(value)
        if value is not None or name != "loss":
            setattr(model, f"{name}_", value)
    model.history_ = [_decode_record(row) for row in training["history"]]
    model._trainer = None
    # Epochs and samples are counted on; the optimizer and its schedule begin anew.
    n_epochs = model.history_[-1].epoch if model.history_ else 0
    model._progress = Progress(
        params=(),
        slots=(),
        n_epochs=n_epochs,
        n_steps=0,
        n_samples=model.t_,
        rule="",
        rule_start=0,
        first_epoch=n_epochs,
    )


def _decode_record(row: dict[str, Any]) -> Record:
    record = Record(**{name: decode(value) for name, value in row.items()})
    expect(
        all(
            _is_count(value)
            if name in ("epoch", "n_samples")
            else _is_number(value) or (value is None and name in _OPTIONAL)
            for name, value in record._asdict().items()
        ),
        f"history has {record}, which is no record of an epoch",
    )
    return record


def _is_width(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
