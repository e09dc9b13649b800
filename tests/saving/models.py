"""Small models to save, and checks that a loaded one is the same."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers import case

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.estimators.fitted.state import fitted_state
from mlp_xp.saving import SavingError, load_model, save_model

X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
CODES = np.arange(60) % 3
SEVERAL = (np.arange(60)[:, None] // (1, 2, 4)) % 2
VALUES = X[:, :2] * 2 + 1
SETTINGS = {"max_iter": 3, "n_iter_no_change": math.inf, "random_state": 0}


def fitted(y=CODES, X=X, **params) -> MLPClassifier:
    return MLPClassifier(**(SETTINGS | {"hidden_layer_sizes": (7, 4)} | params)).fit(X, y)


def regressor(y=VALUES, X=X, X_val=None, y_val=None, **params) -> MLPRegressor:
    model = MLPRegressor(**(SETTINGS | {"hidden_layer_sizes": (7, 4)} | params))
    return model.fit(X, y, X_val=X_val, y_val=y_val)


def spec_of(folder: Path) -> dict:
    return json.loads((folder / "model.json").read_text())


def sign(folder: Path, spec: dict) -> None:
    """Write a spec with the digest that docs/cli.md describes, as an attacker can."""
    spec = {key: value for key, value in spec.items() if key != "sha256"}
    compact = json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()
    weights = next(folder.glob("model*.safetensors"))
    digest = hashlib.sha256(weights.read_bytes() + compact).hexdigest()
    (folder / "model.json").write_text(json.dumps(spec | {"sha256": digest}))


def rejects(message, call, *args, name=None):
    with case(name or message), pytest.raises(SavingError, match=message) as caught:
        call(*args)
    return str(caught.value)


def same_bits(loaded, saved, name: str) -> None:
    """Check that two values are of the same types and bits throughout."""
    assert type(loaded) is type(saved), name
    if isinstance(saved, np.ndarray):
        assert (loaded.dtype, loaded.shape) == (saved.dtype, saved.shape), name
        as_bits = np.ndarray.tolist if saved.dtype == object else np.ndarray.tobytes
        assert as_bits(loaded) == as_bits(saved), name
    elif isinstance(saved, list | tuple):
        assert len(loaded) == len(saved), name
        for i, pair in enumerate(zip(loaded, saved, strict=True)):
            same_bits(*pair, f"{name}[{i}]")
    elif isinstance(saved, dict):
        same_bits(list(loaded.items()), list(saved.items()), name)
    else:
        assert loaded == saved or loaded != loaded != saved != saved, name


def reload(model, folder):
    save_model(model, folder)
    return load_model(folder)


def check(model, folder):
    """Check every attribute but those that are documented to stay out; return the loaded model."""
    loaded = reload(model, folder)
    mine, theirs = (
        {name: value for name, value in vars(each).items() if not name.startswith("_")}
        for each in (model, loaded)
    )
    assert mine.keys() == theirs.keys()
    for name in mine.keys() - {"callbacks"}:
        same_bits(theirs[name], mine[name], name)
    assert loaded.callbacks is None
    before, after = fitted_state(model), fitted_state(loaded)
    for name in ("network", "loss", "input_scaling", "scaling", "dtype", "seed"):
        same_bits(getattr(after, name), getattr(before, name), name)
    for name in ("kind", "classes", "output", "is_sparse"):
        same_bits(getattr(after.targets, name), getattr(before.targets, name), name)
    return loaded
