"""Saved models: arrays as safetensors, everything else as JSON, no pickle.

A folder is checked against its digest before anything in it is used. What a fitted estimator
consists of is decided in `estimators.state`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mlp_xp._utils.files import read_file
from mlp_xp._utils.optional import optional
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.estimators.state import FittedState, fitted_state, publish
from mlp_xp.saving._arrays import check_header, dump_arrays, load_arrays, read_header, shapes
from mlp_xp.saving._files import (
    JSON_LIMIT,
    SPEC,
    WEIGHTS,
    SavingError,
    blamed_on,
    expect,
    read_json,
    replacing,
)
from mlp_xp.saving._json import encode
from mlp_xp.saving._spec import (
    ESTIMATORS,
    check_digest,
    check_rebuilt,
    check_version,
    describe,
    digest,
    rebuild,
)

__all__ = [
    "SPEC",
    "SavingError",
    "check_can_save",
    "encode",
    "load_model",
    "read_json",
    "replacing",
    "save_model",
]


def save_model(estimator: MLPClassifier | MLPRegressor, folder: str | os.PathLike[str]) -> None:
    """Write a fitted classifier or regressor to ``model.safetensors`` and ``model.json``.

    All fitted attributes and the parameters of the constructor are kept bit for bit. The state of
    the optimizer is not, nor are the weights of which a moving average is kept: `partial_fit`
    starts with new ones, at the first step of its schedule. `callbacks` and device objects are left
    out, and a `RandomState` is replaced by the seed that was drawn from it.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted, on any backend.
    folder : str or path-like
        Created where missing. An existing model is replaced once both files of the new one are
        written; an error before that leaves it as it was.

    Raises
    ------
    SavingError
        If classes or parameters have no JSON form, e.g. a loss, activation or scorer of your own,
        if the parameters do not make the network that was fitted, or if the weights are not finite;
        nothing is written.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ImportError
        If the ``cli`` extra is not installed.

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
    spec, state = _checked_spec(estimator)
    weights = dump_arrays(state)
    spec["sha256"] = digest(spec, weights)
    text = json.dumps(spec, indent=2, allow_nan=False)
    expect(
        len(text) <= JSON_LIMIT,
        f"history_ and the curves make {SPEC} {len(text)} bytes long, and {JSON_LIMIT} can be "
        "loaded: keep the last epochs, e.g. model.history_ = model.history_[-1000:]",
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as new_weights, replacing(folder / SPEC) as new_spec:
        new_weights.write_bytes(weights)
        new_spec.write_bytes(text.encode())


def check_can_save(estimator: MLPClassifier | MLPRegressor) -> None:
    """Raise the errors of `save_model`, except for weights that are not finite; write nothing.

    So a fit whose checkpoints cannot be saved fails before its first step.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted, or at the beginning of a fit.

    Raises
    ------
    SavingError, sklearn.exceptions.NotFittedError, ImportError
        As `save_model`.

    Examples
    --------
    >>> from mlp_xp import MLPClassifier
    >>> from mlp_xp.saving import check_can_save
    >>> model = MLPClassifier((4,), max_iter=2, learning_rate="cosine").fit([[0.0], [1.0]], [0, 1])
    >>> check_can_save(model)
    """
    _checked_spec(estimator)


def _checked_spec(
    estimator: MLPClassifier | MLPRegressor,
) -> tuple[dict[str, Any], FittedState]:
    """Return the content of the JSON file, from which the estimator can be made again."""
    optional("safetensors.numpy")  # Where it is missing, that is the first thing to say.
    kind = next((name for name, kind in ESTIMATORS.items() if isinstance(estimator, kind)), None)
    if kind is None:
        raise SavingError(
            f"{type(estimator).__name__} is neither MLPClassifier nor MLPRegressor: use pickle or "
            "joblib, or save its steps one by one"
        )
    state = fitted_state(estimator)
    spec: dict[str, Any] = json.loads(json.dumps(describe(estimator, state, kind), allow_nan=False))
    check_rebuilt(state, spec)
    return spec, state


def load_model(folder: str | os.PathLike[str]) -> MLPClassifier | MLPRegressor:
    """Read a model that `save_model` wrote.

    Nothing in the files is run, and everything is checked before it is used: sizes and shapes
    before memory is taken, the SHA-256 of both files, and that all weights are finite.

    Parameters
    ----------
    folder : str or path-like

    Returns
    -------
    MLPClassifier or MLPRegressor
        Fitted, with NumPy arrays; `set_params(backend=...)` chooses where it computes.

    Raises
    ------
    SavingError
        If a file is missing, damaged, edited, or of another format than `save_model` writes.
    ImportError
        If the ``cli`` extra is not installed.
    """
    folder = Path(folder)
    spec = read_json(folder / SPEC, "save the model again with mlp_xp.saving.save_model")
    with blamed_on(folder / SPEC):
        check_version(spec)
    with blamed_on(folder / WEIGHTS):
        header = read_header(folder / WEIGHTS)
    with blamed_on(folder / SPEC):
        rebuilt = rebuild(spec, len(header.tensors))
        entries = shapes(rebuilt.state)
    with blamed_on(folder / WEIGHTS):
        check_header(header, entries, rebuilt.state.dtype)
        weights = read_file(folder / WEIGHTS, header.file_size)
    with blamed_on(folder):
        check_digest(spec, weights)
    with blamed_on(folder / WEIGHTS):
        state = load_arrays(rebuilt.state, entries, weights)
    model: MLPClassifier | MLPRegressor = rebuilt.model
    publish(model, state, rebuilt.history)
    return model
