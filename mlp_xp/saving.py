"""Fitted classifiers on disk: weights as safetensors, everything else as JSON, no pickle."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mlp_xp._optional import optional
from mlp_xp.backends import to_numpy
from mlp_xp.estimators import MLPClassifier
from mlp_xp.optimizers import OPTIMIZERS
from mlp_xp.schedules import SCHEDULES
from mlp_xp.step import Scaling

__all__ = ["SavingError", "load_model", "read_json", "replacing", "save_model"]

WEIGHTS, SPEC = "model.safetensors", "model.json"
_FORMAT, _VERSION = "mlp_xp.MLPClassifier", 1
_RULES: dict[str, Any] = {**OPTIMIZERS, **SCHEDULES}
_NAMES = {rule: name for name, rule in _RULES.items()}


class SavingError(ValueError):
    """A model that cannot be saved, or files that hold none; the message names what to do."""


def save_model(estimator: MLPClassifier, folder: str | os.PathLike[str]) -> None:
    """Write a fitted classifier to ``model.safetensors`` and ``model.json``.

    What it takes to predict is kept bit for bit, and the parameters of the constructor. The slots
    of the optimizer are not: `partial_fit` starts with new ones. A `RandomState` is kept as the
    seed that was drawn from it, a device object not at all.

    Parameters
    ----------
    estimator : MLPClassifier
        Fitted, on any backend.
    folder : str or path-like
        Created where missing; each of the two files is replaced as a whole.

    Raises
    ------
    SavingError
        If classes or parameters have no JSON form.
    sklearn.exceptions.NotFittedError
        If the classifier is not fitted.
    ImportError
        If the ``cli`` extra is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.saving import load_model, save_model
    >>> X, y = [[0.0], [1.0], [2.0]], ["ant", "bee", "cat"]
    >>> model = MLPClassifier((4,), max_iter=2, n_iter_no_change=float("inf")).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(model, folder)
    ...     loaded = load_model(folder)
    >>> (loaded.predict_proba(X) == model.predict_proba(X)).all()
    np.True_
    """
    safetensors = optional("safetensors.numpy")
    check_is_fitted(estimator)
    tensors: dict[str, Any] = {}
    for i, (W, b) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
        tensors |= {f"layers.{i}.W": W, f"layers.{i}.b": b}
    if estimator._scaling is not None:
        tensors |= estimator._scaling._asdict()
    # safetensors 0.8 writes the memory of an array as it lies, whatever its strides say.
    host = {name: np.ascontiguousarray(to_numpy(array)) for name, array in tensors.items()}
    weights = safetensors.save(host)
    names = getattr(estimator, "feature_names_in_", None)
    spec = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "widths": [W.shape[0] for W in estimator.coefs_] + [estimator.n_outputs_],
        "dtype": estimator._dtype,
        "scaled": estimator._scaling is not None,
        "seed": estimator._seed,
        "classes": _encode_classes(estimator.classes_),
        "feature_names": None if names is None else names.tolist(),
        "params": _encode_params(estimator),
        "training": {
            "loss_curve": [_encode("loss_curve_", loss) for loss in estimator.loss_curve_],
            "n_iter": estimator.n_iter_,
            "t": int(estimator.t_),
        },
    }
    text = json.dumps(spec, indent=2, allow_nan=False)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((WEIGHTS, weights), (SPEC, text.encode())):
        with replacing(folder / name) as path:
            path.write_bytes(content)


def load_model(folder: str | os.PathLike[str]) -> MLPClassifier:
    """Read what `save_model` wrote.

    Nothing in the files is run, and everything is checked before it is used.

    Parameters
    ----------
    folder : str or path-like

    Returns
    -------
    MLPClassifier
        Fitted, with NumPy arrays, whatever it was fitted on; `set_params(backend=...)` chooses
        where it computes from here on.

    Raises
    ------
    SavingError
        If a file is missing, damaged, or not what `save_model` writes.
    ImportError
        If the ``cli`` extra is not installed.
    """
    folder = Path(folder)
    spec = read_json(folder / SPEC, "save the model again with mlp_xp.saving.save_model")
    with _blamed_on(folder / SPEC):
        _expect(spec.get("format") == _FORMAT, f"format is {spec.get('format')!r}, not {_FORMAT!r}")
        version = spec.get("format_version")
        _expect(
            version == _VERSION,
            f"format_version is {version!r}, and this release of mlp-xp reads {_VERSION}: "
            'pip install --upgrade "mlp-xp[cli]"',
        )
        model = _decode_model(spec)
        digest, seed, curve = spec["weights_sha256"], spec["seed"], spec["training"]["loss_curve"]
        _expect(isinstance(seed, int) and seed >= 0, f"seed is {seed!r}, not an integer")
        losses = [float(loss) for loss in curve]
        _expect(len(losses) > 0, "loss_curve is empty")
        counts = spec["training"]["n_iter"], spec["training"]["t"]
        _expect(all(type(n) is int and n >= 0 for n in counts), "n_iter and t are not counts")
    with _blamed_on(folder / WEIGHTS):
        tensors = _read_weights(folder / WEIGHTS, digest, _shapes(spec), spec["dtype"])
    model._seed = seed
    model._scaling = Scaling(tensors["shift"], tensors["scale"]) if spec["scaled"] else None
    model._trainer = model._progress = None
    layers = range(len(spec["widths"]) - 1)
    model.coefs_ = [tensors[f"layers.{i}.W"] for i in layers]
    model.intercepts_ = [tensors[f"layers.{i}.b"] for i in layers]
    model.loss_curve_ = losses
    model.loss_, model.best_loss_ = losses[-1], min(math.inf, *losses)
    model.n_iter_, model.t_ = counts
    return model


def _decode_model(spec: dict[str, Any]) -> MLPClassifier:
    """Make the classifier with all that is in ``model.json`` about its shape."""
    params = spec["params"]
    unknown = sorted(set(params) - set(MLPClassifier().get_params()))
    _expect(not unknown, f"params has {unknown}, which MLPClassifier does not take")
    model = MLPClassifier(**{name: _decode(value) for name, value in params.items()})
    model._validate_params()
    widths, dtype, names = spec["widths"], spec["dtype"], spec["feature_names"]
    _expect(
        len(widths) >= 2 and all(type(width) is int and width >= 1 for width in widths),
        f"widths is {widths!r}, not a list of at least two integers above 0",
    )
    _expect(dtype in ("float32", "float64"), f"dtype is {dtype!r}, not 'float32' or 'float64'")
    _expect(type(spec["scaled"]) is bool, f"scaled is {spec['scaled']!r}, not true or false")
    model.classes_ = _decode_classes(spec["classes"])
    n_classes, n_outputs = len(model.classes_), widths[-1]
    _expect(
        n_outputs == (1 if n_classes == 2 else n_classes),
        f"{n_classes} classes do not fit {n_outputs} outputs",
    )
    model._dtype = dtype
    model._sizes = tuple(widths[1:-1])
    model.n_features_in_, model.n_outputs_ = widths[0], n_outputs
    model.n_layers_ = len(widths)
    model.out_activation_ = "logistic" if n_classes == 2 else "softmax"
    if names is not None:
        _expect(
            len(names) == widths[0] and all(isinstance(name, str) for name in names),
            f"feature_names is not a list of {widths[0]} strings",
        )
        model.feature_names_in_ = np.asarray(names, dtype=object)
    return model


def _shapes(spec: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    widths = spec["widths"]
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
        shapes |= {f"layers.{i}.W": (fan_in, fan_out), f"layers.{i}.b": (fan_out,)}
    return shapes | ({"shift": (widths[0],), "scale": (widths[0],)} if spec["scaled"] else {})


def _read_weights(
    path: Path, digest: str, shapes: dict[str, tuple[int, ...]], dtype: str
) -> dict[str, Any]:
    content = path.read_bytes()
    safetensors = optional("safetensors.numpy")
    try:
        tensors: dict[str, Any] = safetensors.load(content)
    except Exception as error:  # Its own errors, and KeyError for dtypes that NumPy lacks.
        raise SavingError(f"no safetensors file: {error}") from error
    found = {name: (array.shape, str(array.dtype)) for name, array in tensors.items()}
    expected = {name: (shape, dtype) for name, shape in shapes.items()}
    for name in sorted(found.keys() | expected.keys()):
        _expect(
            found.get(name) == expected.get(name),
            f"tensor {name!r} is {_tensor(found.get(name))}, and {SPEC} asks for "
            f"{_tensor(expected.get(name))}",
        )
    _expect(
        hashlib.sha256(content).hexdigest() == digest,
        f"its SHA-256 is not the one in {SPEC}: the two are not from one save",
    )
    return tensors


def _tensor(facts: tuple[tuple[int, ...], str] | None) -> str:
    return "absent" if facts is None else f"{facts[1]} of shape {facts[0]}"


# --- JSON ----------------------------------------------------------------------------------------


def _encode_params(estimator: MLPClassifier) -> dict[str, Any]:
    params = estimator.get_params(deep=False)
    if not isinstance(params["random_state"], int | None):
        params["random_state"] = estimator._seed
    if not isinstance(params["device"], str):
        params["device"] = None
    return {name: _encode(name, value) for name, value in params.items()}


def _encode(name: str, value: Any) -> Any:
    """Give the JSON form of a parameter; JSON has no infinity, so that is a string."""
    if type(value) in _NAMES:
        fields = dataclasses.fields(value)
        settings = {field.name: _encode(name, getattr(value, field.name)) for field in fields}
        return {"name": _NAMES[type(value)], **settings}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_encode(name, item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str | int | float | None):
        return value
    raise SavingError(
        f"{name} is {value!r}, which has no JSON form: use a string, a number, or an object of "
        "mlp_xp.optimizers or mlp_xp.schedules"
    )


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        settings = {key: _decode(item) for key, item in value.items()}
        return _RULES[settings.pop("name")](**settings)
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    return float(value) if value in ("inf", "-inf", "nan") else value


def _encode_classes(classes: np.ndarray) -> dict[str, Any]:
    values = classes.tolist()
    is_text = classes.dtype.kind == "O" and all(isinstance(value, str) for value in values)
    if classes.dtype.kind not in "biufU" and not is_text:
        raise SavingError(
            f"classes_ are of dtype {classes.dtype}, which has no JSON form: fit on strings or "
            "numbers, e.g. y.astype(str)"
        )
    return {"dtype": classes.dtype.str, "values": [_encode("classes_", value) for value in values]}


def _decode_classes(spec: dict[str, Any]) -> np.ndarray:
    values = spec["values"]
    classes = np.asarray(values, dtype=spec["dtype"])
    _expect(
        classes.ndim == 1 and classes.tolist() == values and len(np.unique(classes)) == len(values),
        f"classes are {values!r}, not distinct values of dtype {spec['dtype']!r}",
    )
    _expect(bool(np.all(classes[1:] > classes[:-1])), "classes are not in order")
    return classes


# --- files ---------------------------------------------------------------------------------------


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises
    ------
    SavingError
        If the file is missing or holds anything else; it names the file and the cure.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no JSON, {error}"
        raise SavingError(f"{path} cannot be read ({reason}): {cure}") from error
    if not isinstance(content, dict):
        raise SavingError(f"{path} does not hold a JSON object: {cure}")
    return content


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file as a whole or not at all: give a path beside it, then rename."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SavingError(otherwise)


@contextlib.contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """Turn whatever a file that somebody changed can cause into one error that names the file."""
    try:
        yield
    except OSError as error:
        raise SavingError(f"{path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise SavingError(f"{path} holds no model: {error} is missing or unknown") from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise SavingError(f"{path} holds no model that can be read: {error}") from error
