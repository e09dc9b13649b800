"""Fitted estimators on disk: arrays as safetensors, everything else as JSON, no pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sklearn.utils.validation import check_is_fitted

from mlp_xp._optional import optional
from mlp_xp.estimators import MLPClassifier, MLPRegressor
from mlp_xp.saving._arrays import dump_arrays, load_arrays, sha256, shapes
from mlp_xp.saving._files import SPEC, WEIGHTS, SavingError, blamed_on, read_json, replacing
from mlp_xp.saving._json import encode
from mlp_xp.saving._spec import ESTIMATORS, check_rebuilt, check_version, describe, rebuild

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

    Everything learned is kept bit for bit, and so are the parameters of the constructor. The slots
    of the optimizer are not, nor the weights behind a moving average of them: `partial_fit` starts
    with new ones, at the first step of its schedule. Left out are `callbacks` and device objects,
    and a `RandomState` is kept as the seed that was drawn from it.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Fitted, on any backend.
    folder : str or path-like
        Created where missing. A model that is there is replaced when both files of the new one are
        written; an error before that leaves it as it was.

    Raises
    ------
    SavingError
        If classes or parameters have no JSON form, e.g. a loss, activation or scorer of your own,
        or if the parameters do not make the network that was fitted; nothing is written.
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
    kind = _kind(estimator)
    weights = dump_arrays(estimator)
    text = _checked_text(estimator, kind, sha256(weights))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as new_weights, replacing(folder / SPEC) as new_spec:
        new_weights.write_bytes(weights)
        new_spec.write_bytes(text.encode())


def check_can_save(estimator: MLPClassifier | MLPRegressor) -> None:
    """Raise what `save_model` would, and write nothing.

    A fit that is to be saved as it goes on can be refused before its first step.

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
    _checked_text(estimator, _kind(estimator), "")


def _kind(estimator: MLPClassifier | MLPRegressor) -> str:
    """Name the kind of an estimator that is fitted, and which is one of ours."""
    optional("safetensors.numpy")  # Where it is missing, that is the first thing to say.
    kind = next((name for name, kind in ESTIMATORS.items() if isinstance(estimator, kind)), None)
    if kind is None:
        raise SavingError(
            f"{type(estimator).__name__} is neither MLPClassifier nor MLPRegressor: use pickle or "
            "joblib, or save its steps one by one"
        )
    check_is_fitted(estimator)
    return kind


def _checked_text(estimator: MLPClassifier | MLPRegressor, kind: str, digest: str) -> str:
    """Give what the JSON file holds, from which the estimator can be made again."""
    text = json.dumps(describe(estimator, kind, digest), indent=2, allow_nan=False)
    check_rebuilt(estimator, json.loads(text))
    return text


def load_model(folder: str | os.PathLike[str]) -> MLPClassifier | MLPRegressor:
    """Read what `save_model` wrote.

    Nothing in the files is run, and everything is checked before it is used.

    Parameters
    ----------
    folder : str or path-like

    Returns
    -------
    MLPClassifier or MLPRegressor
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
    with blamed_on(folder / SPEC):
        check_version(spec)
        model: MLPClassifier | MLPRegressor = rebuild(spec)
        digest, entries = spec["weights_sha256"], shapes(model)
    with blamed_on(folder / WEIGHTS):
        load_arrays(model, entries, digest, folder / WEIGHTS)
    return model
