"""Saved models, with arrays as safetensors and everything else as JSON, without pickle.

A model is returned only after its files have been checked against their digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from mlp_xp._utils.optional import optional
from mlp_xp._utils.storage.durable import locked, make_folder, replacing, sweep
from mlp_xp._utils.storage.files import check_text, read_file
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.averaging import BaseEnsemble
from mlp_xp.estimators.fitted.state import FittedState, fitted_state, publish
from mlp_xp.saving._arrays import check_header, dump_arrays, load_arrays, read_header
from mlp_xp.saving._ensembles import (
    ENSEMBLES,
    describe_ensemble,
    name_members,
    rebuild_ensemble,
    with_networks,
)
from mlp_xp.saving._files import (
    SPEC,
    WEIGHTS,
    SavingError,
    errors_name,
    expect,
    read_json,
)
from mlp_xp.saving._json import decode, encode
from mlp_xp.saving._pipelines import dump_steps, is_steps_name, steps_name, with_steps
from mlp_xp.saving._skops import skops_types
from mlp_xp.saving._spec import (
    ESTIMATORS,
    check_digest,
    check_rebuilt,
    check_version,
    describe,
    digest,
    has_columns,
    is_weights_name,
    point_to,
    rebuild,
    weights_name,
    weights_of,
)

__all__ = [
    "SPEC",
    "SavingError",
    "check_can_save",
    "decode",
    "encode",
    "load_model",
    "read_json",
    "save_model",
    "skops_types",
    "write_model",
]

Saved = MLPClassifier | MLPRegressor | BaseEnsemble


def save_model(estimator: Saved | Pipeline, folder: str | os.PathLike[str]) -> None:
    """Write a fitted classifier, regressor or ensemble to ``model.safetensors`` and ``model.json``.

    A Pipeline that ends in such an estimator is saved as a whole, with its other steps in the skops
    format; this requires the ``skops`` extra.

    All fitted attributes and constructor parameters are saved bit for bit. The optimizer state is
    not saved, so `partial_fit` on a loaded model starts with a new state, at the first step of its
    schedule. If the weights have a moving average, only the average is saved. `callbacks` and
    device objects are left out, and a `RandomState` is replaced by the seed drawn from it.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor, an ensemble of them, or a Pipeline that ends in one
        Fitted, on any backend.
    folder : str or path-like
        Created if missing. An existing model is replaced as a whole: until the new one is
        completely on disk, `load_model` reads the old one, even after an error, a kill or a power
        failure.

    Raises
    ------
    SavingError
        If classes or parameters have no JSON form, e.g. a custom loss, activation or scorer; if the
        parameters do not describe the fitted network; if the weights are not finite; or if a
        Pipeline has steps of types that skops does not trust. Then nothing is written.
    BlockingIOError
        If another process or thread is writing to the folder.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ImportError
        If the ``cli`` extra is not installed, or for a Pipeline the ``skops`` extra.

    Examples
    --------
    >>> import tempfile
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.saving import load_model, save_model
    >>> X, y = [[0.0], [1.0], [2.0]], ["ant", "bee", "cat"]
    >>> model = MLPClassifier((4,), max_iter=2, learning_rate="cosine").fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(model, folder)
    ...     loaded = load_model(folder)
    >>> (loaded.predict_proba(X) == model.predict_proba(X)).all()
    np.True_
    """
    files = _Files(estimator)
    folder = Path(folder)
    make_folder(folder)
    with locked(folder):
        sweep(folder)
        files.write(folder)


def write_model(estimator: Saved | Pipeline, folder: Path) -> None:
    """Write a model, like `save_model`, into an existing folder that the caller has locked."""
    _Files(estimator).write(folder)


class _Files:
    """The contents of a model's two files, and of a third file for a Pipeline."""

    def __init__(self, estimator: Saved | Pipeline) -> None:
        self._steps: dict[str, bytes] = {}
        if isinstance(estimator, Pipeline) and isinstance(estimator[-1], Saved):
            content, estimator = dump_steps(estimator), estimator[-1]
            self._steps = {steps_name(content): content}
        self._spec, states = _checked_spec(estimator)
        self._weights = dump_arrays(states)
        self._sha256 = hashlib.sha256(self._weights)
        self._text = self._spec_text()

    def write(self, folder: Path) -> None:
        name = WEIGHTS
        # The old weights are kept until the new model is complete.
        if self._steps or has_columns(self._spec) or (folder / SPEC).exists():
            name = weights_name(self._sha256)
            point_to(self._spec, name, *self._steps)
            self._text = self._spec_text()
        try:
            for file, content in {**self._steps, name: self._weights, SPEC: self._text}.items():
                with replacing(folder / file) as new:
                    new.write_bytes(content)
        finally:
            _remove_unused_files(folder)

    def _spec_text(self) -> bytes:
        """Return the content of the JSON file, with the digest."""
        self._spec["sha256"] = digest(self._spec, self._sha256)
        text = json.dumps(self._spec, indent=2, allow_nan=False).encode()
        try:
            check_text(text)
        except ValueError as error:
            raise SavingError(
                f"{SPEC} cannot be loaded, because history_ and the curves give it {error}: keep "
                "only the last epochs, e.g. model.history_ = model.history_[-1000:]"
            ) from error
        return text


def _remove_unused_files(folder: Path) -> None:
    """Remove the weights and steps left by the previous model or by a failed write."""
    used: tuple[Any, ...] = ()
    if (folder / SPEC).exists():
        try:
            spec = _read_spec(folder)
            used = weights_of(spec), spec.get("steps")
        except (SavingError, LookupError, TypeError):
            return
    for path in folder.iterdir():
        if path.name not in used and (is_weights_name(path.name) or is_steps_name(path.name)):
            with contextlib.suppress(PermissionError):  # On Windows, a reader has it open.
                path.unlink()


def _read_spec(folder: Path) -> dict[str, Any]:
    path = folder / SPEC
    if not os.path.exists(path):  # The user may have meant a nearby folder.
        near = _near(folder)
        such_as = "" if near is None else f", such as {near}"
        return read_json(path, f"expected a folder that mlp_xp.saving.save_model wrote{such_as}")
    return read_json(path, "save the model again with mlp_xp.saving.save_model")


def _near(folder: Path) -> Path | None:
    """Return a nearby model folder: the parent of a file, or a subfolder of a folder."""
    with contextlib.suppress(OSError):
        if folder.is_file() and (folder.parent / SPEC).is_file():
            return folder.parent
        # Folders whose names begin with a dot are left by interrupted saves.
        return min((path.parent for path in folder.glob(f"[!.]*/{SPEC}")), default=None)
    return None


def check_can_save(estimator: Saved) -> None:
    """Raise the errors of `save_model`, except for non-finite weights, without writing files.

    `Checkpoint` calls this before the first step of a fit.
    """
    _checked_spec(estimator)


def _checked_spec(estimator: Any) -> tuple[dict[str, Any], dict[str, FittedState]]:
    """Return the content of the JSON file, and the networks' states by name.

    Raise SavingError if content and states do not describe the estimator completely.
    """
    optional("safetensors.numpy")  # Report a missing package before other errors.
    if isinstance(estimator, BaseEnsemble):
        check_is_fitted(estimator)
        described = [_checked_spec(network) for network in estimator.estimators_]
        states = name_members([state for _, states in described for state in states.values()])
        return describe_ensemble(estimator, [spec for spec, _ in described]), states
    kind = next((name for name, kind in ESTIMATORS.items() if isinstance(estimator, kind)), None)
    if kind is None:
        library, name = type(estimator).__module__.partition(".")[0], type(estimator).__name__
        cure = "use pickle or joblib, or save its steps one by one"
        if isinstance(estimator, str | os.PathLike):
            cure = "type save_model(estimator, folder)"
        elif isinstance(estimator, type):
            name, cure = f"the class {estimator.__name__}", "pass a fitted instance"
        elif name in ESTIMATORS:
            name = f"{library}'s {name}"
            if library == "sklearn":
                cure = "convert it with mlp_xp.export.from_sklearn"
        expected = "an MLPClassifier or MLPRegressor of mlp_xp or an ensemble of them"
        raise SavingError(f"{name} is not {expected}: {cure}")
    state = fitted_state(estimator)
    spec: dict[str, Any] = json.loads(json.dumps(describe(estimator, state, kind), allow_nan=False))
    check_rebuilt(state, spec)
    return spec, {"": state}


def load_model(folder: str | os.PathLike[str]) -> Any:
    """Load a model saved by `save_model`.

    Nothing in the files is executed, and everything is checked before use: sizes and shapes (before
    memory is allocated), the SHA-256 of both files, and whether all weights are finite.

    Parameters
    ----------
    folder : str or path-like

    Returns
    -------
    MLPClassifier or MLPRegressor, an ensemble of them, or a Pipeline that ends in one
        Fitted, with NumPy arrays; `set_params(backend=...)` chooses where it computes.

    Raises
    ------
    SavingError
        If a file is missing, damaged, edited, or not in the format that `save_model` writes.
    ImportError
        If the ``cli`` extra is not installed, or for a Pipeline the ``skops`` extra.
    """
    folder = Path(folder)
    while True:
        version = _version(folder)
        try:
            return _load(folder)
        except SavingError:
            if _version(folder) == version:
                raise
            # Another process has replaced the model in the meantime.


def _version(folder: Path) -> Any:
    """Return a value that changes with each save, or None if there is no model."""
    with contextlib.suppress(OSError):
        status = (folder / SPEC).stat()
        return status.st_ino, status.st_mtime_ns
    return None


def _load(folder: Path) -> Any:
    spec = _read_spec(folder)
    with errors_name(folder / SPEC):
        check_version(spec)
        path = folder / weights_of(spec)
    with errors_name(path):
        header = read_header(path)
    with errors_name(folder / SPEC):
        is_ensemble = spec["estimator"] in ENSEMBLES
        specs = spec["networks"] if is_ensemble else [spec]
        rebuilt: list[Any] = []
        for network in specs:
            known = network.get("columns") == specs[0].get("columns") and rebuilt
            columns = rebuilt[0].state.columns if known else None
            rebuilt.append(rebuild(network, len(header.tensors), columns))
        states = [part.state for part in rebuilt]
        named = name_members(states) if is_ensemble else {"": states[0]}
        ensemble = rebuild_ensemble(spec, rebuilt) if is_ensemble else None
    with errors_name(path):
        check_header(header, named)
        weights = read_file(path, header.file_size)
    with errors_name(folder):
        check_digest(spec, weights)
    with errors_name(path):
        states = load_arrays(named, weights)
    for part, state in zip(rebuilt, states, strict=True):
        publish(part.model, state, part.history)
    model = rebuilt[0].model
    if ensemble is not None:
        model = with_networks(ensemble, [part.model for part in rebuilt])
    return with_steps(folder, spec["steps"], model) if "steps" in spec else model
