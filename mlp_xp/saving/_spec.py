"""What ``model.json`` holds: everything about a fitted estimator but its arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.saving._files import SavingError, expect
from mlp_xp.saving._json import decode, decode_classes, encode, encode_classes
from mlp_xp.scaling import SCALINGS, Whiten
from mlp_xp.training import Progress, Record

ESTIMATORS = {kind.__name__: kind for kind in (MLPClassifier, MLPRegressor)}

_FORMAT, _VERSION = "mlp_xp", 3
_NUMBERS = ("loss", "best_loss", "best_validation_score")
_CURVES = ("loss_curve", "validation_scores", "validation_loss_curve")
_OPTIONAL = ("accuracy", "validation_loss", "validation_score")


# --- to JSON -------------------------------------------------------------------------------------


def describe(estimator: Any, kind: str, digest: str) -> dict[str, Any]:
    """Give the spec of a fitted estimator; ``digest`` ties it to its arrays."""
    names = getattr(estimator, "feature_names_in_", None)
    spec = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "estimator": kind,
        "weights_sha256": digest,
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
            f"the parameters have been changed since the fit: {error}; set them back, or fit again"
        ) from error


# --- and back ------------------------------------------------------------------------------------


def check_version(spec: dict[str, Any]) -> None:
    found, version = spec.get("format"), spec.get("format_version")
    expect(found == _FORMAT, f"format is {found!r}, not {_FORMAT!r}")
    expect(
        version == _VERSION,
        f"format_version is {version!r}, and this release of mlp-xp reads {_VERSION}: "
        'pip install --upgrade "mlp-xp[cli]"',
    )


def rebuild(spec: dict[str, Any]) -> Any:
    """Make the estimator that a spec describes, without its arrays."""

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
    _set_training(model, spec["training"])
    return model


def _set_targets(model: Any, spec: dict[str, Any]) -> None:
    """Set what a classifier knows of its classes."""
    model.classes_ = decode_classes(spec["classes"])
    model._target_type = kind = spec["target_type"]
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
    expect(all(type(n) is int and n >= 0 for n in counts), "n_iter and t are not counts")
    model.n_iter_, model.t_ = counts
    for name in _CURVES:
        curve = decode(training[name])
        expect(
            all(map(_is_number, curve))
            if isinstance(curve, list)
            else curve is None and name != "loss_curve",
            f"{name} is not a list of numbers",
        )
        setattr(model, f"{name}_", curve)
    for name in _NUMBERS:
        value = decode(training[name])
        expect(value is None or _is_number(value), f"{name} is {value!r}, not a number")
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
            type(value) is int and value >= 0
            if name in ("epoch", "n_samples")
            else _is_number(value) or (value is None and name in _OPTIONAL)
            for name, value in record._asdict().items()
        ),
        f"history has {record}, which is no record of an epoch",
    )
    return record


def _is_width(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
