"""Model folders that were damaged, edited or made to do harm are rejected quickly."""

import contextlib
import copy
import json
import math
import os
import re
import shutil
import sys

import numpy as np
import pytest
import safetensors.numpy
from helpers import bounded, matrix, names
from models import CODES, SETTINGS, X, fitted, rejects, sign, spec_of

from mlp_xp import MLPClassifier, MLPRegressor
from mlp_xp.nn.hidden import Branch
from mlp_xp.optimizers import Muon
from mlp_xp.optimizers.schedules import Constant
from mlp_xp.saving import SavingError, load_model, save_model


@pytest.fixture(scope="module")
def model():
    return MLPClassifier((7, 4), input_scaling="standardize", **SETTINGS).fit(X, CODES)


@pytest.fixture
def saved(model, tmp_path):
    save_model(model, tmp_path)
    return tmp_path


@pytest.fixture(params=[contextlib.nullcontext, *matrix(bounded)])
def limits(request):
    """Return a context for what is rejected; in the matrix it limits time and memory."""
    return request.param


def nested(depth):
    value = {"class": "Constant"}
    for _ in range(depth):
        value = {"class": "LinearWarmup", "then": value}
    return value


TRAINING = {"n_iter": 1, "t": 60, "loss": 1.0, "best_loss": 1.0, "loss_curve": [1.0]}
TRAINING |= {"history": [], "best_validation_score": None}
TRAINING |= {"validation_scores": None, "validation_loss_curve": None}
FLIP = {"class": "Flip", "image_shape": [2, 2, 2]}
MANY_VIEWS = [FLIP | {"image_shape": [1, 1, 5]}] * 99
RECORD = {"epoch": 1, "loss": 1.0, "accuracy": None, "learning_rate": 0.1}
RECORD |= {"n_samples": 60, "seconds": 0.5}
WARMUP = {"class": "LinearWarmup", "then": {"class": "SGD"}}
# Changes of one type or value that no check of a name foresees.
NO_MODEL = [
    *({"params": value} for value in ([], {"solver": {}}, {"device": 3}, {"dropout": ["a", "b"]})),
    {"classes": {"dtype": "<i8", "values": [0, 1, "2x"]}},
    *({"training": value} for value in (None, {"n_iter": 0, "t": 0}, TRAINING | {"history": [3]})),
]
NO_RECORDS = [RECORD | change for change in ({"epoch": -1}, {"epoch": 1.5}, {"loss": None})]
TAMPERED = [
    *((changes, "model.json cannot be loaded") for changes in NO_MODEL),
    *(({"training": TRAINING | {"history": [r]}}, "not a valid record") for r in NO_RECORDS),
    ({"params": {"solver": {"class": ["SGD"]}}}, "unhashable"),
    ({"format_version": 5, "weights": "../o.safetensors"}, "weights is .*, not such as 'model-e3"),
    ({"format_version": 5, "weights": 3}, "weights is .*, not such as 'model-e3b0c44298fc1c14"),
    ({"format": "keras"}, r"format is 'keras', not 'mlp_xp'"),
    ({"format_version": 8}, r"format_version is 8, but .* reads 4 to 7: .* update mlp-xp"),
    ({"format_version": 3}, r"format_version is 3, but .* reads 4 to 7: .* train it again"),
    ({"estimator": "Pipeline"}, "estimator is 'Pipeline', not one of MLPClassifier, MLPReg"),
    ({"estimator": "MLPRegressor"}, "which are not parameters of MLPRegressor"),
    ({"params": {"depth": 3}}, r"params has \['depth'\]"),
    ({"params": {"alpha": -1}}, "'alpha' parameter"),
    ({"params": {"callbacks": [3]}}, r"params has \['callbacks'\]"),
    ({"params": {"solver": {"class": "Tiger"}}}, "solver is 'Tiger', not one of SGD, Adam, "),
    ({"params": {"solver": {"class": "SGD", "speed": 1}}}, "speed"),
    ({"params": {"solver": {"class": "AdamW", "beta_1": "x"}}}, "AdamW has beta_1='x', which"),
    ({"params": {"solver": {"name": "SGD"}}}, "is not a JSON form"),
    ({"params": {"alpha": {"class": "SGD"}}}, "alpha is 'SGD', not one of none"),
    ({"params": {"alpha": {"float": "1e999"}}}, "is not a JSON form"),
    ({"params": {"class_weight": {"items": [[{"items": []}, 1]]}}}, "{} is not a class label"),
    ({"params": {"class_weight": {"items": [[2**64, 1]]}}}, "18446744073709551616 is not a"),
    ({"params": {"device": "cpu; ls"}}, "device is 'cpu; ls', not null or a name such as"),
    ({"params": {"tta": [5]}}, "tta has 5, which is not one of Flip, Shift"),
    ({"params": {"tta": FLIP}}, r"tta has Flip.* is 8, but the data have 5 features"),
    ({"params": {"tta": MANY_VIEWS}}, "tta must have at most .* views"),
    ({"params": {"augmentation": [FLIP]}}, "augmentation has Flip.* but the data have 5"),
    ({"params": {"activation": ["relu"]}}, "`activation` must be a single value"),
    ({"params": {"loss": {"class": "Custom"}}}, "loss is 'Custom', not one of Softmax"),
    ({"params": {"learning_rate": WARMUP}}, "then is 'SGD', not one of Constant"),
    ({"params": {"learning_rate": nested(700)}}, "recursion"),
    ({"params": {"solver": "x" * 10_000}}, "'solver' parameter of MLPClassifier .* instead"),
    ({"params": {"normalization": "batch"}}, r"'moments\.0\.mean' is absent"),
    ({"params": {"label_smoothing": 0.1, "loss": "focal"}}, "label_smoothing is 0.1"),
    ({"out_activation": "logistic", "widths": [5, 7, 4, 1]}, "3 classes do not fit 1 outputs"),
    ({"out_activation": "exp"}, "out_activation is 'exp', which does not fit"),
    ({"target_type": "binary"}, "target_type is 'binary', which does not fit 3 classes"),
    ({"target_type": "multilabel"}, "out_activation is 'softmax', which does not fit"),
    ({"target_type": None}, "target_type is None"),
    ({"widths": [5]}, r"widths is \[5\]"),
    ({"widths": [5, 0, 4, 3]}, "above 0"),
    ({"widths": [5, 7, 4, 2]}, "3 classes do not fit 2 outputs"),
    ({"widths": [5, 8, 4, 3]}, r"'layers.0.W' is float32 of shape \(5, 7\).*\(5, 8\)"),
    ({"dtype": "float16"}, "dtype is 'float16'"),
    ({"scaled": 1}, "scaled is 1, not null, one of standardize, zca, pca or a Whiten"),
    ({"scaled": None}, r"'scaling\.scale' is float32"),
    ({"seed": "0"}, "seed is '0'"),
    ({"seed": 2**40}, "not an integer of 32 bits"),
    ({"classes": {"dtype": "<U99999999", "values": ["a", "b", "c"]}}, "got 1144 MiB for"),
    ({"classes": {"dtype": "(999,999)f8", "values": [0, 1, 2]}}, r"got '\(999,999\)f8'"),
    ({"classes": {"dtype": ["<i8"], "values": [0, 1, 2]}}, r"must be one such as .* got \['<i8'\]"),
    ({"classes": {"dtype": "<i8", "values": [0, 1, 1.5]}}, "not values of dtype '<i8'"),
    ({"classes": {"dtype": "<i8", "values": [0, 1, 1]}}, "not sorted and unique"),
    ({"classes": {"dtype": "|O", "values": [{}, {}, {}]}}, "object are not all strings"),
    ({"feature_names": ["a"]}, "not a list of 5 strings"),
    ({"training": {"loss_curve": [1], "n_iter": -1, "t": 0}}, "n_iter and t must be"),
    ({"training": TRAINING | {"validation_scores": 3}}, "validation_scores is not a list"),
    ({"training": TRAINING | {"loss": "low"}}, "loss is 'low', not a number"),
    ({"training": TRAINING | {"history": [{"epoch": 1}]}}, "missing 5 required"),
]
SCALINGS = ([[0.0], [0.0]], [[0.0], [math.nan]], [[0.0, 1.0], [1.0, 1.0]], [[0.0]], [["a"], [1.0]])
TAMPERED_REGRESSORS = [
    ({"out_activation": "exp"}, "out_activation is 'exp', but params imply 'identity'"),
    ({"target_scaling": None}, "target_scaling is None, but params have 'standardize'"),
    *(({"target_scaling": value}, "must have two|needs deviations") for value in SCALINGS),
    *(({"target_scaling": value}, "cannot be loaded") for value in (3, [[10**400], [1]])),
    ({"calibration_samples": 0}, "calibration_samples is 0, not an integer above 0"),
    ({"calibration_column": 99}, "calibration_column is 99, not the position of a column"),
    ({"calibration_column": 0}, r"tensor 'calibration.codes' is absent, but .* float32 of shape"),
    ({"calibration_samples": 61}, r"'calibration.scores' is float32 of shape \(60, 1, 1\).*\(61"),
]


@pytest.mark.parametrize(("changes", "message"), TAMPERED)
def test_a_tampered_spec_is_rejected(changes, message, saved):
    sign(saved, spec_of(saved) | changes)
    said = rejects(message, load_model, saved)
    assert str(saved) in said
    assert "\n" not in said
    assert len(said) < 1000


@pytest.mark.parametrize(
    "key", ["format_version", "estimator", "params", "widths", "classes", "target_type"]
)
def test_a_spec_without_a_key_is_rejected(key, saved):
    sign(saved, {name: value for name, value in spec_of(saved).items() if name != key})
    rejects(key, load_model, saved)


def test_untampered_specs_load(saved):
    spec, folder = spec_of(saved), saved / "regressor"
    sign(saved, spec | {"training": TRAINING | {"history": [RECORD]}})
    assert load_model(saved).history_[0].n_samples == 60
    sign(saved, spec | {"params": {"learning_rate": nested(3)}})
    assert load_model(saved).learning_rate.then.then.then == Constant()
    model = MLPRegressor(target_scaling="standardize", **SETTINGS).fit(X, X[:, 0])
    save_model(model.calibrate_intervals(X, X[:, 0]), folder)
    spec = spec_of(folder)
    for changes, message in TAMPERED_REGRESSORS:
        sign(folder, spec | changes)
        rejects(message, load_model, folder)


def test_missing_or_invalid_json_files_are_named(saved):
    path, spec = saved / "model.json", spec_of(saved)
    path.write_text(json.dumps({key: value for key, value in spec.items() if key != "sha256"}))
    rejects("sha256", load_model, saved)
    for content in (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        rejects(r"model\.json .*: save the model again", load_model, saved, name=content[:9])
    sign(saved, spec)
    for name in ("model.safetensors", "model.json"):
        load_model(saved)
        whole = (saved / name).read_bytes()
        (saved / name).unlink()
        rejects(rf"{name} cannot be read.*No such file", load_model, saved)
        (saved / name).write_bytes(whole)


def test_damaged_weights_are_rejected(saved, monkeypatch):
    path, spec, save = saved / "model.safetensors", spec_of(saved), safetensors.numpy.save
    whole = path.read_bytes()
    tensors = safetensors.numpy.load(whole)

    def rejects_weights(content, message):
        path.write_bytes(content)
        rejects(message, load_model, saved)

    for content in (b"", whole[:-1], whole + b"x", b"x" * len(whole), whole[:9]):
        rejects_weights(content, r"model\.safetensors cannot be loaded")
    bias = tensors.pop("layers.1.b")
    rejects_weights(save(tensors), r"'layers\.1\.b' is absent.*float32 of shape \(4,\)")
    tensors |= {"layers.1.b": bias}
    rejects_weights(save(tensors | {"zzz": bias}), r"'zzz' is float32 of shape \(4,\).* absent")
    for name in ("layers.0.W", "layers.2.b", "scaling.scale"):
        for value in (np.nan, np.inf, -np.inf):
            changed = tensors[name].copy()
            changed.flat[-1] = value
            path.write_bytes(save(tensors | {name: changed}))
            sign(saved, spec)
            said = f"{name}' has NaN or infinity.* train again, e.g. with"
            rejects_weights(path.read_bytes(), said)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"'safetensors'.*pip install -e \".*\[cli\]\""):
        load_model(saved)


@pytest.mark.parametrize("n", [10, *matrix(200)])
def test_flipped_bits_in_a_saved_model_are_detected(n, saved, rng):
    """Each bit of some bytes of both files: rejected, or without a change of content (1e5, 1E5)."""
    for path in (saved / "model.json", saved / "model.safetensors"):
        whole = path.read_bytes()
        for position in rng.choice(len(whole), n, replace=False):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << rng.integers(8)
            path.write_bytes(flipped)
            with contextlib.suppress(SavingError):
                load_model(saved)
                assert path.name == "model.json"
                assert json.loads(flipped) == json.loads(whole)
        path.write_bytes(whole)
    load_model(saved)


def test_reformatted_specs_load_but_edited_ones_and_other_weights_do_not(model, saved):
    """Version control changes line ends, and editors change indents."""
    path, spec = saved / "model.json", spec_of(saved)
    for content in (path.read_bytes().replace(b"\n", b"\r\n"), json.dumps(spec).encode()):
        path.write_bytes(content)
        np.testing.assert_array_equal(load_model(saved).coefs_[0], model.coefs_[0])
    path.write_text(json.dumps(spec | {"params": spec["params"] | {"alpha": 0.5}}))
    rejects(r"SHA-256 of .* edited.* load_model, set_params and", load_model, saved)
    other = MLPClassifier((7, 4), input_scaling="standardize", **SETTINGS | {"random_state": 1})
    save_model(other.fit(X, CODES), saved / "other")
    path.write_text(json.dumps(spec))
    shutil.copy(saved / "other" / "model.safetensors", saved)
    rejects(r"from another save\. Restore both from a copy", load_model, saved)


BRANCH = {"class": "Branch", "layers": {"tuple": [10**8, 5]}}
MANY = {"class": "Branch", "layers": {"tuple": [1] * 50_000 + [5]}}
AXES = {"tuple": [5] + [1] * 50_000}
BLOCKS = {"class": "Blocks", "shape": AXES, "mixed": {"tuple": list(range(25_000))}}
COLLIDING = [[k * (2**61 - 1), 1] for k in range(5000)]
# Values of the kinds that take the most memory.
MANY_VALUES = {
    "empty lists": lambda n: [[]] * (n // 2),
    "lists": lambda n: [[1]] * (n // 2),
    "objects": lambda n: [{f"{i:x}": 1} for i in range(n // 2)],
    "keys": lambda n: {f"{i:x}": 1 for i in range(n)},
    "text": lambda n: [f"{i:x}" for i in range(n)],
}
BOMBS = {
    "wide layers": {"widths": [5, 10**8, 3], "params": {"normalization": "batch"}},
    "a wide projection": {"widths": [5, {"class": "Project", "width": 10**9}, 3]},
    "wide branch": {"widths": [5, BRANCH, 3]},
    "many layers": {"widths": [5, *[1] * 50_000, 3]},
    "many layers of a branch": {"widths": [5, MANY, 3]},
    "many axes": {"widths": [5, BLOCKS, 3]},
    "a class dtype": {"classes": {"dtype": "<U16384", "values": [f"{i:05}" for i in range(6_000)]}},
    "colliding keys": {"params": {"class_weight": {"items": COLLIDING}}},
    "long numbers": {"widths": [5, 10**4000, 3]},
}


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs_are_rejected_within_memory_and_time_limits(name, saved, limits):
    sign(saved, spec_of(saved) | BOMBS[name])
    with limits():
        rejects(r"model\.(json|safetensors) cannot be loaded", load_model, saved)


def test_weights_file_with_a_false_length_is_rejected(saved, limits):
    whole, spec = (saved / "model.safetensors").read_bytes(), spec_of(saved)
    for length in (2**63, 2**40, len(whole) - 7):  # More than there is.
        (saved / "model.safetensors").write_bytes(length.to_bytes(8, "little") + whole[8:])
        sign(saved, spec)
        with limits():
            rejects("invalid safetensors file: dam", load_model, saved, name=length)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_gigabyte_of_zeros_and_named_pipe_are_rejected(name, saved, limits):
    with (saved / name).open("ab") as file:
        file.truncate(1 << 30)
    with limits():
        rejects(rf"{name} .*(more than the 33554432|tensors must take)", load_model, saved)
    if hasattr(os, "mkfifo"):  # A named pipe is rejected without waiting.
        (saved / name).unlink()
        os.mkfifo(saved / name)
        rejects(rf"{name} cannot be read.*not a regular file", load_model, saved)


def test_more_than_a_million_values_are_rejected(saved):
    sign(saved, spec_of(saved) | {"widths": MANY_VALUES["empty lists"](1_000_100)})
    rejects(r"model\.json .*10\d+ values, more than the 1000000 allowed", load_model, saved)
    (saved / "model.json").write_bytes(b"{" + b" " * 2**23 + "é".encode() + b"}")
    rejects(r"model\.json .* not ASCII, more than 8388608\): save the model", load_model, saved)


@pytest.mark.parametrize("name", matrix(*MANY_VALUES))
@pytest.mark.parametrize("place", ["widths", "params", "feature_names", "unknown"])
def test_loading_a_million_values_takes_little_memory_and_time(name, place, saved):
    sign(saved, spec_of(saved) | {place: MANY_VALUES[name](990_000)})
    with bounded(), contextlib.suppress(SavingError):
        load_model(saved)


def test_a_model_whose_history_is_too_long_to_load_is_not_saved(model, tmp_path, monkeypatch):
    monkeypatch.setattr("mlp_xp._utils.storage.files.MOST_VALUES", 1000)
    long = copy.copy(model)
    long.history_ = model.history_ * 50
    said = (
        r"model\.json cannot be loaded, because .* give it \d+ values, more than the 1000 allowed"
    )
    rejects(
        rf"{said}: keep only the last epochs, e\.g\. model\.history_ =", save_model, long, tmp_path
    )
    assert names(tmp_path) == []


FORMS = [None, True, -1, 0, 1.5, 2**70, "x", [], {}, [1] * 50, {"class": "Adam"}, {"float": "nan"}]


def change(form, rng):
    """Replace one value in a JSON form, at any depth."""
    if isinstance(form, dict | list) and form and rng.random() < 0.8:
        keys = list(form) if isinstance(form, dict) else range(len(form))
        key = keys[rng.integers(len(keys))]
        changed = form.copy()
        changed[key] = change(form[key], rng)
        return changed
    return FORMS[rng.integers(len(FORMS))]


@pytest.mark.matrix
def test_changed_values_with_a_matching_digest_load_or_raise_a_clear_error(tmp_path, rng):
    settings = SETTINGS | {"normalization": "batch", "class_weight": {0: 1.0, 1: 2.0}}
    model = MLPClassifier((5, Branch((8, 5))), solver=Muon(), **settings).fit(X, CODES % 2)
    save_model(model.set_params(learning_rate="cosine"), tmp_path)
    whole = spec_of(tmp_path)
    for _ in range(180):
        spec = change(whole, rng)
        if isinstance(spec, dict):
            sign(tmp_path, spec)
        else:
            (tmp_path / "model.json").write_text(json.dumps(spec))
        with bounded(), contextlib.suppress(SavingError):
            load_model(tmp_path)
            continue
        assert len(rejects(re.escape(str(tmp_path)), load_model, tmp_path)) < 1000


# Changes of the first column of a table, a category, or of what was learned of its numbers.
CATEGORY = [
    *({"kind": kind} for kind in ("text", "number", 3)),
    *({"values": values} for values in (["a", "a"], ["a", 1.0], [["a"], ["b"]], 3, [None])),
    *({"has_missing": 1}, {"name": 3}, {"is_embedded": False}, {"is_big": True}),
]
NUMBERS = [
    *({"medians": values} for values in ([], [1.0, 2.0], ["a"], [math.nan], [[1.0]], None)),
    *({"dtype": "float16"}, {"columns": []}, {"columns": 3}, {"scaling": {}}, {"scaling": 3}),
    {"scaling": {"shift": [1.0, 2.0], "scale": [1.0], "is_clipped": True}},
    {"scaling": {"shift": [1.0], "scale": [1.0], "is_clipped": 1}},
    *({"scaling": {"quantiles": q}} for q in ([[2.0], [1.0]], [1.0], [[1.0]], [[1.0, 2.0]] * 2)),
]
OF_NUMBERS = [
    *({"n_rows": n} for n in (59, -1, 60.0)),
    *({"edges": edges} for edges in ([1.0], [1.0] * 9, ["a"] * 9, 3)),
    *({"low": low} for low in (9.0, None, math.nan, 0, "a")),
    *({"counts": [*[0] * 9, 60.0]}, {"categories": [[1]]}, {"depth": 1}),
]


def test_tampered_columns_of_a_table_are_rejected(tmp_path):
    table = np.asarray([[f"{i % 12}", 0.1 * i] for i in range(60)], dtype=object)
    settings = {"categorical_features": [0], "input_scaling": "robust"}
    save_model(fitted(X=table, **settings), tmp_path)
    spec = spec_of(tmp_path)
    sign(tmp_path, spec)
    load_model(tmp_path).predict(table)
    columns = spec["columns"]
    first, *others = columns["columns"]
    changed = [{"columns": [first | change, *others]} for change in CATEGORY]
    of_text, of_numbers = columns["distributions"]
    changed += [{"distributions": [of_text, of_numbers | change]} for change in OF_NUMBERS]
    changed += [{"distributions": found} for found in ([of_text], [of_numbers, of_text], 3, [3])]
    for change in changed + NUMBERS:
        sign(tmp_path, spec | {"columns": columns | change})
        rejects("cannot be loaded|columns", load_model, tmp_path, name=str(change))
