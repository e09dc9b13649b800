"""The content of ``model.json``: everything in a fitted estimator except its arrays."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.fitted.calibration import Calibration
from mlp_xp.estimators.fitted.state import FittedState
from mlp_xp.estimators.settings.config import resolve_augmentation, resolve_config
from mlp_xp.estimators.targets import (
    ClassTargets,
    MultilabelTargets,
    MultioutputTargets,
    RealTargets,
    Targets,
)
from mlp_xp.recipes.parameters import TABLE_SCALINGS
from mlp_xp.saving._files import SPEC, WEIGHTS, SavingError, brief, expect
from mlp_xp.saving._history import decode_history, encode_history
from mlp_xp.saving._json import decode, decode_classes, encode, encode_classes, is_number
from mlp_xp.training.data.input_scaling import SCALINGS, Whiten
from mlp_xp.training.loop.history import History
from mlp_xp.training.loop.loop_settings import LoopPosition
from mlp_xp.training.loop.records import ResumeState

if TYPE_CHECKING:
    from mlp_xp.estimators.tables.columns import TableColumns

ESTIMATORS = {kind.__name__: kind for kind in (MLPClassifier, MLPRegressor)}

_FORMAT, _VERSION = "mlp_xp", 7  # Version 7 added `columns`, for tables.
# In version 4, the weights are in `WEIGHTS`; since version 5, the spec names their file.
_DEFAULT_WEIGHTS, _NAMED_WEIGHTS = 4, 5
_STEPS = 6  # Version 6 added the steps of a Pipeline.
_OF_COLUMNS = ("categorical_features", "max_one_hot", "monotonic_cst")
_MAX_VIEWS = 1000
_NAME_LENGTH = 16  # The number of hexadecimal digits in the name of a weights file.


# --- to JSON -------------------------------------------------------------------------------------


def describe(estimator: Any, state: FittedState, kind: str) -> dict[str, Any]:
    """Return the spec of a fitted estimator, without the digest."""
    names = getattr(estimator, "feature_names_in_", None)
    spec = {
        "format": _FORMAT,
        "format_version": _DEFAULT_WEIGHTS,
        "estimator": kind,
        "widths": encode("hidden_layer_sizes", list(state.network.widths), "hidden_layer_sizes"),
        "dtype": state.dtype,
        "features": state.n_features,
        "scaled": encode("scaled", state.input_scaling, "input_scaling"),
        "seed": state.seed,
        "out_activation": state.output,
        "feature_names": None if names is None else names.tolist(),
        "params": _encode_params(estimator, state, kind),
        "training": encode_history(estimator),
    }
    if state.network.inputs is not None:
        spec["inputs"] = encode("inputs", state.network.inputs, "inputs")
    if state.columns is not None:
        settings = {k: encode(k, value, k) for k, value in state.columns.settings.items()}
        spec["columns"] = state.columns.to_json() | {"settings": settings}
    if state.target_scaling is not None:
        spec["target_scaling"] = [numbers.tolist() for numbers in state.targets.scaling]
    if state.clips_predictions:
        spec["target_limits"] = [numbers.tolist() for numbers in state.targets.limits]
    if state.calibration is not None:
        spec["calibration_samples"] = len(state.calibration.scores)
    if state.coverage_by is not None:
        spec["calibration_column"] = state.coverage_by
    if state.temperature is not None:
        spec["temperature"] = state.temperature
    if state.targets.classes is not None:
        spec["target_type"] = state.targets.kind
        spec["sparse_targets"] = state.targets.is_sparse
        spec["classes"] = encode_classes(state.targets.classes)
    return spec


def _encode_params(estimator: Any, state: FittedState, kind: str) -> dict[str, Any]:
    # A subclass is saved as its base class, since the subclass may have another constructor.
    names = ESTIMATORS[kind]._get_param_names()
    params = {name: getattr(estimator, name) for name in names if name != "callbacks"}
    if not isinstance(params["random_state"], int | None):
        params["random_state"] = state.seed
    if not isinstance(params["device"], str):
        params["device"] = None
    return {name: encode(name, value, name) for name, value in params.items()}


def check_rebuilt(state: FittedState, spec: dict[str, Any]) -> None:
    """Raise SavingError if the parameters do not describe the fitted network."""
    try:
        rebuilt = rebuild(spec)
        params = rebuilt.model.get_params(deep=False)
        inputs = rebuilt.state.network.inputs
        config = resolve_config(params, state.n_features, rebuilt.state.targets, inputs=inputs)
        for old, new in (
            (state.network, config.rules.network),
            (state.loss, config.rules.loss),
            (state.input_scaling, config.input_scaling),
            (state.target_scaling, config.target_scaling),
            (state.dtype, config.dtype or rebuilt.state.dtype),
        ):
            expect(old == new, f"the fit had {old!r}, but now they say {new!r}")
    # Parameters that were set after the fit may be invalid and cause any error.
    except Exception as error:
        raise SavingError(
            f"the parameters have been changed since the fit: {brief(error)}; set them back, or "
            "fit again"
        ) from error


# --- from JSON -----------------------------------------------------------------------------------


def check_version(spec: dict[str, Any]) -> None:
    """Raise SavingError for another program's format or an unsupported version."""
    found, version = spec.get("format"), spec.get("format_version")
    expect(found == _FORMAT, f"format is {found!r}, not {_FORMAT!r}")
    known = f"format_version is {version!r}, but this mlp-xp reads {_DEFAULT_WEIGHTS} to {_VERSION}"
    if type(version) is not int:
        raise SavingError(known)
    expect(version <= _VERSION, f"{known}: the model was saved by a newer mlp-xp, so update mlp-xp")
    cure = "the model was saved before the first release, so train it again"
    expect(version >= _DEFAULT_WEIGHTS, f"{known}: {cure}")


def weights_name(sha256: hashlib._Hash) -> str:
    """Return a name for the weights file that is unique to its content."""
    return WEIGHTS.replace(".", f"-{sha256.hexdigest()[:_NAME_LENGTH]}.")


def is_weights_name(name: Any) -> bool:
    """Whether a name is a valid name of a weights file."""
    stem, dot, suffix = WEIGHTS.partition(".")
    pattern = rf"{stem}(-[0-9a-f]{{{_NAME_LENGTH}}})?{dot}{suffix}"
    return isinstance(name, str) and bool(re.fullmatch(pattern, name))


def point_to(spec: dict[str, Any], name: str, steps: str | None = None) -> None:
    """Store the names of the weights file and, for a Pipeline, the skops file in a spec."""
    spec.update(format_version=_NAMED_WEIGHTS, weights=name)
    if steps is not None:
        spec.update(format_version=_STEPS, steps=steps)
    if has_columns(spec):
        spec.update(format_version=_VERSION)


def has_columns(spec: dict[str, Any]) -> bool:
    """Whether a network has table columns, which need the newest format version."""
    return any("columns" in network for network in spec.get("networks", [spec]))


def weights_of(spec: dict[str, Any]) -> str:
    """Return the name of the weights file."""
    if spec["format_version"] < _NAMED_WEIGHTS:
        return WEIGHTS
    example = weights_name(hashlib.sha256())
    return str(_take(spec, "weights", is_weights_name, f"such as {example!r}"))


def digest(spec: dict[str, Any], sha256: hashlib._Hash) -> str:
    """Return the SHA-256 of a model: its weights file followed by its spec as compact JSON."""
    described = {key: value for key, value in spec.items() if key != "sha256"}
    whole = sha256.copy()
    whole.update(json.dumps(described, sort_keys=True, separators=(",", ":")).encode())
    return whole.hexdigest()


def check_digest(spec: dict[str, Any], weights: bytes) -> None:
    """Raise SavingError if a spec or the weights have changed since they were saved."""
    saved, found = spec["sha256"], digest(spec, hashlib.sha256(weights))
    expect(
        saved == found,
        f"the SHA-256 of {WEIGHTS} and {SPEC} is {found}, but was {saved} when they were saved: "
        "one of them is damaged, edited, or from another save. Restore both from a copy; to change "
        "a setting, use load_model, set_params and save_model",
    )


class Rebuilt(NamedTuple):
    """An unfitted estimator, its fitted state without the arrays, and its training history."""

    model: Any
    state: FittedState
    history: History


def _take(spec: dict[str, Any], name: str, is_right: Callable[[Any], bool], what: str) -> Any:
    value = spec[name]
    expect(is_right(value), f"{name} is {value!r}, not {what}")
    return value


def rebuild(
    spec: dict[str, Any], max_layers: float = math.inf, columns: TableColumns | None = None
) -> Rebuilt:
    """Return the estimator and the state that a spec describes, without arrays.

    Raise SavingError before the network is created if it has more layers than ``max_layers``.
    ``columns`` are the spec's columns, if they are already decoded.
    """
    kind = _take(spec, "estimator", ESTIMATORS.__contains__, f"one of {', '.join(ESTIMATORS)}")
    model: Any = ESTIMATORS[kind]()
    params = spec["params"]
    unknown = sorted(set(params) - (set(model.get_params()) - {"callbacks"}))
    expect(not unknown, f"params has {unknown}, which are not parameters of {kind}")
    model.set_params(**{name: decode(value, name) for name, value in params.items()})
    model._validate_params()
    widths = _widths(spec, max_layers)
    n_features = _take(spec, "features", _is_width, "an integer above 0")
    names, n_columns = spec["feature_names"], n_features
    if "columns" in spec:
        from mlp_xp.estimators.tables.columns import decode_columns  # Only needed for tables.

        if columns is None:
            settings = spec["columns"].get("settings", {})  # Older files have no settings.
            expect({*settings} <= {*_OF_COLUMNS}, f"columns has unknown settings {settings!r:.200}")
            settings = {name: decode(value, name) for name, value in settings.items()}
            columns = replace(decode_columns(spec["columns"]), settings=settings)
        n_columns = len(columns.columns)
        expect(len(columns.input_names) == n_features, f"columns must have {n_features} inputs")
    if names is not None:
        are_texts = len(names) == n_columns and all(isinstance(name, str) for name in names)
        expect(are_texts, f"feature_names is not a list of {n_columns} strings")
        model.feature_names_in_ = np.asarray(names, dtype=object)
    settings = model.get_params(deep=False)
    targets = _targets(spec, kind, widths[-1] // settings["n_members"], settings)
    inputs = decode(spec.get("inputs"), "inputs")
    if columns is not None:
        block, found = columns.block, () if inputs is None else inputs.categories
        codes, signs = block.categories, () if inputs is None else inputs.directions
        expect(codes == found, f"inputs has categories {found}, but columns has {codes}")
        expect(block.directions == signs, f"inputs has directions {signs}, but columns have others")
    config = resolve_config(settings, n_features, targets, widths[1:-1], inputs)
    network, output = config.rules.network, spec["out_activation"]
    said = f"out_activation is {output!r}, but params imply {config.output!r}"
    expect(config.output == output, said)
    first = network.widths[0]
    expect(first == widths[0], f"widths begins with {widths[0]}, but params imply {first}")
    scaled = decode(spec["scaled"], "input_scaling")
    known = (*SCALINGS, *(TABLE_SCALINGS if columns else ()))
    is_scaling = isinstance(scaled, Whiten | None) or (type(scaled) is str and scaled in known)
    expect(is_scaling, f"scaled is {scaled!r}, not null, one of {', '.join(SCALINGS)} or a Whiten")
    dtype = _take(spec, "dtype", ("float32", "float64").__contains__, "'float32' or 'float64'")
    details = {"dtype": dtype, "seed": _take(spec, "seed", _is_seed, "an integer of 32 bits")}
    details |= {"input_scaling": scaled, "columns": columns}
    state = FittedState(network, config.rules.loss, output, targets, n_features, **details)
    _check_late_settings(model, n_features)
    if "calibration_samples" in spec:
        n_samples = _take(spec, "calibration_samples", _is_width, "an integer above 0")
        is_real = targets.classes is None
        n_scores = (targets.n_outputs, max(1, len(state.loss.levels))) if is_real else (1, 1)
        shape = n_samples, *n_scores
        state = replace(state, calibration=Calibration(shape))
        if "calibration_column" in spec:
            is_column = range(n_columns).__contains__
            column = _take(spec, "calibration_column", is_column, "the position of a column")
            is_category = columns is None or columns.category_inputs(column) is not None
            expect(is_category, f"calibration_column is {column}, which has no categories")
            grouped = Calibration(shape, (n_samples,))
            state = replace(state, calibration=grouped, coverage_by=column)
    if kind == "MLPClassifier" and "temperature" in spec:
        temperature = _take(spec, "temperature", _is_above_0, "a number above 0")
        state = replace(state, temperature=temperature)
    history = decode_history(spec["training"])
    # The counts of epochs and samples continue; the optimizer and its schedule start over.
    n_epochs = history.records[-1].epoch if history.records else 0
    progress = ResumeState((), (), n_epochs, 0, history.n_samples, rule="", rule_start=0)
    state = replace(state, progress=progress, position=LoopPosition(first_epoch=n_epochs))
    return Rebuilt(model, state, history)


def _widths(spec: dict[str, Any], max_layers: float) -> tuple[Any, ...]:
    what = "a list of at least two integers above 0, or of layers between them"
    widths = decode(_take(spec, "widths", _are_widths, what), "hidden_layer_sizes")
    are_widths = _is_width(widths[0]) and _is_width(widths[-1])
    expect(are_widths, "widths must begin and end with integers")
    n_layers = sum(1 if _is_width(n) else n.n_layers for n in widths[1:])
    said = f"widths has {n_layers} layers, but {WEIGHTS} has {max_layers} tensors"
    expect(n_layers <= max_layers, said)
    return tuple(widths)


def _targets(spec: dict[str, Any], kind: str, n_outputs: int, params: dict[str, Any]) -> Targets:
    """Return the targets that a spec describes."""
    if kind == "MLPRegressor":
        real = RealTargets.of_weights({}, n_outputs, params)
        given = real.n_outputs, params
        scaling = _target_numbers(spec, "target_scaling", *given)
        expect(scaling is None or min(scaling[1]) > 0.0, "target_scaling needs deviations above 0")
        limits = _target_numbers(spec, "target_limits", *given, "clip_predictions")
        return replace(real, scaling=scaling, limits=limits)
    classes, target_type = decode_classes(spec["classes"]), spec["target_type"]
    output, n_classes = spec["out_activation"], len(classes)
    if isinstance(classes, list):
        several = MultioutputTargets(classes, is_sparse=spec.get("sparse_targets") is True)
        fits = (target_type, n_outputs) == (several.kind, several.n_outputs)
        expect(fits and output == "softmax", f"target_type {target_type!r} does not match classes")
        return several
    fitting = ("multilabel", "binary" if n_classes == 2 else "multiclass")
    said = f"target_type is {target_type!r}, which does not fit {n_classes} classes"
    expect(target_type in fitting, said)
    fits = output == "logistic" or (output == "softmax" and target_type != "multilabel")
    expect(fits, f"out_activation is {output!r}, which does not fit target_type {target_type!r}")
    targets_type = MultilabelTargets if target_type == "multilabel" else ClassTargets
    targets = targets_type(classes, output, spec.get("sparse_targets") is True)
    expect(n_outputs == targets.n_outputs, f"{n_classes} classes do not fit {n_outputs} outputs")
    return targets


def _target_numbers(
    spec: dict[str, Any], name: str, n_outputs: int, params: dict[str, Any], setting: str = ""
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return two arrays with a number per output, or None if the parameter is off."""
    found, given = spec.get(name), params[setting or name]
    expect((found is None) == (not given), f"{name} is {found!r}, but params have {given!r}")
    if found is None:
        return None
    are_numbers = len(found) == 2 and all(
        len(numbers) == n_outputs and all(is_number(n) and math.isfinite(n) for n in numbers)
        for numbers in found
    )
    expect(are_numbers, f"{name} must have two finite numbers for each of {n_outputs} outputs")
    first, second = np.asarray(found, dtype=np.float64)
    return first, second


def _check_late_settings(model: Any, n_features: int) -> None:
    """Check settings that estimators check only when they fit or predict."""
    device = "cpu" if model.device is None else model.device
    is_name = bool(re.fullmatch(r"\w{1,30}(:\d{1,4})?", device, re.ASCII))
    expect(is_name, f"device is {device!r}, not null or a name such as 'cpu' or 'cuda:0'")
    views = resolve_augmentation("tta", model.tta, n_features)
    n_views = math.prod(len(transform.views) for transform in views)
    expect(n_views <= _MAX_VIEWS, f"tta must have at most {_MAX_VIEWS} views, got {n_views}")


def _is_width(value: Any) -> bool:
    return type(value) is int and value >= 1


def _are_widths(values: Any) -> bool:
    return len(values) >= 2 and all(type(n) is dict or _is_width(n) for n in values)


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**32


def _is_above_0(value: Any) -> bool:
    return is_number(value) and 0 < value < math.inf
