"""Ensembles are saved as one model."""

import json

import numpy as np
import pandas as pd
import pytest
from saved_models import CODES, SETTINGS, VALUES, X, rejects
from sklearn.exceptions import NotFittedError

from mlp_xp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor
from mlp_xp.optimizers import AdamW
from mlp_xp.saving import SPEC, load_model, save_model

LABELS = np.asarray(["ant", "bee", "cat"])[CODES]


def ensemble() -> MLPEnsembleClassifier:
    network = MLPClassifier((7, 4), normalization="batch", device="cpu", **SETTINGS)
    settings = [{"alpha": 0.1}, {"hidden_layer_sizes": (3,), "solver": AdamW(weight_decay=0.1)}]
    return MLPEnsembleClassifier(network, 3, settings=settings, random_state=0)


def test_all_comes_back(tmp_path):
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = ensemble().fit(frame, LABELS)
    save_model(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    loaded = load_model(tmp_path)
    assert type(loaded) is MLPEnsembleClassifier
    mine, theirs = ({k: str(v) for k, v in m.get_params().items()} for m in (model, loaded))
    assert mine == theirs
    assert vars(loaded).keys() == vars(model).keys()
    for name in ("classes_", "feature_names_in_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    found, expected = (m.predict_proba(frame, return_std=True) for m in (loaded, model))
    for pair in zip(found, expected, strict=True):
        np.testing.assert_array_equal(*pair)
    assert loaded.predict(frame).tolist() == model.predict(frame).tolist()


def test_a_regressor_and_a_later_model_replace_each_other(tmp_path):
    model = MLPEnsembleRegressor(MLPRegressor(**SETTINGS), 2, random_state=0)
    for alpha in (0.1, 0.2):
        save_model(model.set_params(estimator__alpha=alpha).fit(X, VALUES), tmp_path)
        np.testing.assert_array_equal(load_model(tmp_path).predict(X), model.predict(X))
        assert len(list(tmp_path.iterdir())) == 2
    single = MLPRegressor(**SETTINGS).fit(X, VALUES)
    save_model(single, tmp_path)
    np.testing.assert_array_equal(load_model(tmp_path).predict(X), single.predict(X))


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        save_model(ensemble(), tmp_path)
    model = ensemble().fit(X, CODES)
    before, model.settings = model.settings, [{"loss": lambda outputs, targets, *, xp: None}]
    rejects(r"loss is .* which has no JSON form", save_model, model, tmp_path)
    model.settings = before
    model.estimators_[1].coefs_[0][0, 0] = np.inf
    rejects(r"tensor '1.layers.0.W' has NaN or infinity", save_model, model, tmp_path)


def test_changed_files_are_errors(tmp_path):
    save_model(ensemble().fit(X, LABELS), tmp_path)
    whole = (tmp_path / SPEC).read_text()
    labels = {"values": ["x", "y", "z"]}
    for change, message in (
        (lambda spec: spec["networks"].pop(), "tensor '2.layers"),
        (lambda spec: spec.update(networks=[]), "networks is empty"),
        (lambda spec: spec.update(networks=7), "no model that can be read"),
        (lambda spec: spec["networks"][1]["classes"].update(labels), "not of one kind"),
        (lambda spec: spec["params"].update(n_estimators=-1), "n_estimators"),
        (lambda spec: spec["params"].update(nothing=1), "nothing"),
        (lambda spec: spec["params"]["estimator"].update(callbacks=[1]), "callbacks"),
        (lambda spec: spec["params"]["settings"][0].update(alpha=-1), "alpha"),
        (lambda spec: spec["params"].update(verbose=True), "SHA-256"),
    ):
        spec = json.loads(whole)
        change(spec)
        (tmp_path / SPEC).write_text(json.dumps(spec))
        rejects(message, load_model, tmp_path)
