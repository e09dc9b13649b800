"""Saved models come back as they were, and nothing else comes back at all."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import safetensors.numpy
from sklearn.exceptions import NotFittedError

from mlp_xp import MLPClassifier
from mlp_xp.optimizers import SGD, AdamW
from mlp_xp.saving import SavingError, load_model, replacing, save_model
from mlp_xp.schedules import Cosine, LinearWarmup

X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
CODES = np.arange(60) % 3


def fitted(y=CODES, X=X, **params) -> MLPClassifier:
    settings = {"max_iter": 3, "n_iter_no_change": math.inf, "random_state": 0}
    return MLPClassifier((7, 4), **(settings | params)).fit(X, y)


@pytest.mark.parametrize(
    "y",
    [
        CODES,
        CODES - 7,
        CODES.astype(np.uint8),
        CODES.astype(np.float32),
        CODES > 0,
        np.asarray(["ant", "bee", "é ü"])[CODES],
        np.asarray(["ant", "bee", "cat"], dtype=object)[CODES],
        np.asarray(["no", "yes"])[CODES % 2],
        np.zeros(60, dtype=int),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("input_scaling", [None, "standardize"])
def test_a_loaded_model_predicts_the_same_bits(y, dtype, input_scaling, tmp_path):
    data = X.astype(dtype)
    model = fitted(y, data, input_scaling=input_scaling)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.predict_proba(data).tobytes() == model.predict_proba(data).tobytes()
    assert loaded.predict(data).dtype == model.predict(data).dtype
    np.testing.assert_array_equal(loaded.predict(data), model.predict(data))


def test_everything_learned_and_set_comes_back(tmp_path):
    model = fitted(
        solver=AdamW(weight_decay=0.05),
        learning_rate=LinearWarmup(0.2, Cosine(0.1)),
        batch_size=np.int64(20),
        random_state=3,
        backend="numpy",
    )
    save_model(model, tmp_path / "new" / "folder")
    loaded = load_model(tmp_path / "new" / "folder")
    assert loaded.get_params() == model.get_params()
    before, after = model.__getstate__(), loaded.__getstate__()
    assert before.keys() == after.keys()
    for name in ("loss_", "best_loss_", "loss_curve_", "n_iter_", "t_", "n_layers_", "_seed"):
        assert before[name] == after[name], name


def test_a_loaded_model_goes_on_training(tmp_path):
    model = fitted(solver=SGD(momentum=0.0))
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    loaded.partial_fit(X, CODES)
    assert loaded.n_iter_ == model.n_iter_ + 1
    assert not np.array_equal(loaded.coefs_[0], model.coefs_[0])


def test_a_random_state_object_becomes_the_seed_that_it_gave(tmp_path):
    model = fitted(random_state=np.random.RandomState(5))
    save_model(model, tmp_path)
    again = load_model(tmp_path).fit(X, CODES)
    np.testing.assert_array_equal(again.coefs_[0], model.coefs_[0])


def test_column_names_come_back(tmp_path):
    model = fitted()
    model.feature_names_in_ = np.asarray(list("abcde"), dtype=object)
    save_model(model, tmp_path)
    assert load_model(tmp_path).feature_names_in_.tolist() == list("abcde")


def test_a_diverged_model_is_saved_too(tmp_path):
    model = fitted()
    model.loss_curve_ = [1.0, math.inf, math.nan]
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.loss_curve_[:2] == [1.0, math.inf]
    assert math.isnan(loaded.loss_)
    assert loaded.best_loss_ == 1.0


def test_arrays_that_are_not_in_c_order_are_saved_right(tmp_path):
    model = fitted()
    expected = [W.copy() for W in model.coefs_]
    model.coefs_ = [np.asfortranarray(expected[0]), expected[1][::-1][::-1], expected[2].T.copy().T]
    assert not model.coefs_[0].flags.c_contiguous
    save_model(model, tmp_path)
    for loaded, W in zip(load_model(tmp_path).coefs_, expected, strict=True):
        np.testing.assert_array_equal(loaded, W)


def test_what_any_backend_fitted_opens_as_numpy(backend, tmp_path):
    with backend.scope():
        model = MLPClassifier((7,), max_iter=2, random_state=0, n_iter_no_change=math.inf)
        model.set_params(backend=backend.name, device=backend.device).fit(X, CODES)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.backend == backend.name
    assert all(isinstance(array, np.ndarray) for array in (*loaded.coefs_, *loaded.intercepts_))
    loaded.set_params(backend="numpy", device=None)
    np.testing.assert_allclose(loaded.predict_proba(X), model.predict_proba(X), rtol=1e-4)


# --- what must not be saved or loaded ------------------------------------------------------------


def test_an_unfitted_model_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        save_model(MLPClassifier(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_rule_of_somebody_else_is_refused(tmp_path):
    class Mine(SGD):
        pass

    with pytest.raises(SavingError, match=r"solver is .*Mine.* no JSON form: use a string"):
        save_model(fitted(solver=Mine()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_classes_without_a_json_form_are_refused(tmp_path):
    model = fitted()
    model.classes_ = np.asarray([1, "a", None], dtype=object)
    with pytest.raises(SavingError, match=r"classes_ are of dtype object.*y\.astype\(str\)"):
        save_model(model, tmp_path)


@pytest.fixture
def saved(tmp_path):
    save_model(fitted(input_scaling="standardize"), tmp_path)
    return tmp_path


def edit(folder, **changes) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "keras"}, r"format is 'keras', not 'mlp_xp\.MLPClassifier'"),
        ({"format_version": 2}, r"format_version is 2, and .* reads 1: pip install --upgrade"),
        ({"format_version": None}, "format_version is None"),
        ({"params": {"depth": 3}}, r"params has \['depth'\]"),
        ({"params": {"alpha": -1}}, "'alpha' parameter"),
        ({"params": {"solver": {"name": "lion"}}}, "'lion' is missing or unknown"),
        ({"params": {"solver": {"name": "sgd", "speed": 1}}}, "speed"),
        ({"params": {"solver": {"name": "adamw", "beta_1": "x"}}}, "model.json holds no model"),
        ({"params": {"solver": {"name": "cosine"}}}, "'solver' parameter"),
        ({"params": []}, "model.json holds no model"),
        ({"widths": [5]}, r"widths is \[5\]"),
        ({"widths": [5, -7, 4, 3]}, "above 0"),
        ({"widths": [5, 7, 4, 2]}, "3 classes do not fit 2 outputs"),
        ({"widths": [5, 8, 4, 3]}, r"'layers.0.W' is float32 of shape \(5, 7\).*\(5, 8\)"),
        ({"widths": [5, 7, 4, 4, 3]}, "'layers.2.W' is"),
        ({"widths": [5, 7, 3]}, "'layers.1.W' is"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"dtype": "float64"}, "'layers.0.W' is float32 of shape"),
        ({"scaled": 1}, "scaled is 1, not true or false"),
        ({"scaled": False}, "'scale' is float32"),
        ({"seed": "0"}, "seed is '0'"),
        ({"classes": {"dtype": "<i8", "values": [0, 1, "2x"]}}, "model.json holds no model"),
        ({"classes": {"dtype": "<i8", "values": [0, 1, 1.5]}}, "not distinct values of dtype"),
        ({"classes": {"dtype": "<i8", "values": [0, 1, 1]}}, "not distinct"),
        ({"classes": {"dtype": "<i8", "values": [2, 1, 0]}}, "not in order"),
        ({"classes": {"dtype": "nonsense", "values": [0, 1, 2]}}, "nonsense"),
        ({"classes": {"dtype": "|O", "values": [{}, {}, {}]}}, "model.json holds no model"),
        ({"feature_names": ["a"]}, "not a list of 5 strings"),
        ({"training": {"loss_curve": [], "n_iter": 0, "t": 0}}, "model.json holds no model"),
        ({"training": {"loss_curve": [1], "n_iter": -1, "t": 0}}, "not counts"),
        ({"training": None}, "model.json holds no model"),
        ({"weights_sha256": "0" * 64}, "model.safetensors .*SHA-256"),
    ],
)
def test_a_tampered_spec_is_refused(changes, message, saved):
    edit(saved, **changes)
    with pytest.raises(SavingError, match=message) as caught:
        load_model(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["format_version", "params", "widths", "weights_sha256", "classes"])
def test_a_missing_key_is_named(key, saved):
    spec = json.loads((saved / "model.json").read_text())
    del spec[key]
    (saved / "model.json").write_text(json.dumps(spec))
    with pytest.raises(SavingError, match=key):
        load_model(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_refused(content, saved):
    (saved / "model.json").write_bytes(content)
    with pytest.raises(SavingError, match=r"model\.json .*: save the model again"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(name, saved):
    (saved / name).unlink()
    with pytest.raises(SavingError, match=rf"{name} cannot be read.*No such file"):
        load_model(saved)


def test_damaged_weights_are_refused(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], b"x" * len(whole), whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(SavingError, match=r"model\.safetensors holds no model"):
            load_model(saved)


def test_missing_and_additional_tensors_are_named(saved):
    path = saved / "model.safetensors"
    tensors = safetensors.numpy.load(path.read_bytes())
    bias = tensors.pop("layers.1.b")
    path.write_bytes(safetensors.numpy.save(tensors))
    with pytest.raises(SavingError, match=r"'layers\.1\.b' is absent.*float32 of shape \(4,\)"):
        load_model(saved)
    path.write_bytes(safetensors.numpy.save(tensors | {"layers.1.b": bias, "zzz": bias}))
    with pytest.raises(SavingError, match=r"'zzz' is float32 of shape \(4,\).* absent"):
        load_model(saved)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as beside:
            beside.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_without_safetensors_it_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"'safetensors'.*pip install \"mlp-xp\[cli\]\""):
        load_model(saved)
