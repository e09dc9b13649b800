"""Model folders with changes drawn at random: they load, or they are a clear error."""

import json

import numpy as np
import pytest
from helpers import bounded, mutate
from saved_models import sign

from mlp_xp import MLPClassifier
from mlp_xp.nn.hidden import Branch
from mlp_xp.optimizers import Muon
from mlp_xp.saving import SavingError, load_model, save_model

pytestmark = pytest.mark.matrix

SETTINGS = {"hidden_layer_sizes": (6, Branch((8, 6))), "solver": Muon(), "normalization": "batch"}
VALUES = [None, True, -1, 0, 1.5, 2**70, "x", [], {}, [1] * 50, {"class": "Adam"}, {"float": "nan"}]


@pytest.fixture
def saved(tmp_path, rng):
    model = MLPClassifier(**SETTINGS, max_iter=2, class_weight={0: 1.0, 1: 2.0}, random_state=0)
    X = rng.normal(size=(60, 6)).astype(np.float32)
    save_model(model.set_params(learning_rate="cosine").fit(X, np.arange(60) % 2), tmp_path)
    return tmp_path


def load(folder):
    said = str(folder)
    with bounded():
        try:
            load_model(folder)
        except SavingError as error:
            said = str(error)
    assert str(folder) in said
    assert len(said) < 1000


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_bytes_are_changed(name, saved, rng):
    whole = (saved / name).read_bytes()
    for _ in range(150):
        (saved / name).write_bytes(mutate(whole, [whole], rng))
        load(saved)


def change(form, rng):
    """Replace one value in a JSON form, at any depth."""
    if isinstance(form, dict | list) and form and rng.random() < 0.8:
        keys = list(form) if isinstance(form, dict) else range(len(form))
        key = keys[rng.integers(len(keys))]
        changed = form.copy()
        changed[key] = change(form[key], rng)
        return changed
    return VALUES[rng.integers(len(VALUES))]


def test_values_are_changed_and_the_digest_with_them(saved, rng):
    whole = json.loads((saved / "model.json").read_text())
    for _ in range(180):
        spec = change(whole, rng)
        if isinstance(spec, dict):
            sign(saved, spec)
        else:
            (saved / "model.json").write_text(json.dumps(spec))
        load(saved)
